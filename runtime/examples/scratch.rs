use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let path = std::path::Path::new(&a[2]);
    let t = Instant::now();
    if a[1] == "synth" {
        bitnet_runtime::synth::write(path, bitnet_runtime::synth::Shape::find(&a[3]).unwrap(), 1, a.get(4).map(|l| l.parse().unwrap()), &mut |_, _| true).unwrap();
    } else {
        let m = bitnet_runtime::format::open(path, &Default::default()).unwrap();
        println!("open {:?}", t.elapsed());
        let mut n = 0;
        for id in m.linear_ids() { n += m.ternary(id).unwrap().k(); }
        println!("{n}");
    }
    println!("{:?}", t.elapsed());
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.contains("HWM") ).collect::<String>());
}
