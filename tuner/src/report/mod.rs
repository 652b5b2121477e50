//! A profile as one page: pictures as SVG, light and dark, nothing loaded from anywhere.
//!
//! ```text
//! data      points of the pictures, from a profile and from recordings      no drawing
//! pictures  the points on axes                                              no page
//! chart     how a picture looks, whatever it shows
//! ```
//! The page is well-formed XML as well as HTML, so that a test can read it.

mod chart;
mod data;
mod pictures;

use crate::landscape::Landscape;
use bitnet_runtime::profile::{Entry, Profile};
use chart::DrawError;
use data::Data;
use std::fmt::Write as _;

/// Characters of a name that are shown.
const NAME_CHARS: usize = 200;

/// Text for the page: markup is not obeyed, characters that XML has not are spelt out, long names are cut.
fn text(raw: &str) -> String {
    let mut out = String::new();
    for c in raw.chars().take(NAME_CHARS) {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c if c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c) => {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }
    if raw.chars().nth(NAME_CHARS).is_some() {
        out.push('…');
    }
    out
}

const HEAD: &str = r#"<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width"/>
<style>
"#;

const STYLE: &str = "body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); color: var(--ink) }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
figure { margin: 1rem 0 } figcaption { color: var(--soft) } svg { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { text-align: left } .key { font-weight: 600 }
";

/// One picture with its words.
struct Figure {
    title: String,
    caption: String,
    svg: String,
}

/// The page about `profile`, with what `recordings` hold of every candidate.
///
/// # Errors
/// `DrawError`: none is known.
pub fn page(profile: &Profile, recordings: &[Landscape]) -> Result<String, DrawError> {
    let data = Data::of(profile, recordings);
    let mut out = String::from(HEAD);
    out += &chart::themes();
    out += STYLE;
    let machine = text(&profile.host.machine.kind());
    let _ = write!(
        out,
        "</style>\n<title>{machine}</title>\n</head>\n<body>\n<h1>{machine}</h1>\n{}",
        summary(profile)
    );
    for figure in figures(profile, &data)? {
        let _ = writeln!(
            out,
            "<h2>{}</h2>\n<figure>\n{}<figcaption>{}</figcaption>\n</figure>",
            text(&figure.title),
            figure.svg,
            figure.caption
        );
    }
    out += &winners(profile);
    Ok(out + "</body>\n</html>\n")
}

fn summary(profile: &Profile) -> String {
    let c = &profile.conditions;
    let how = match profile.is_estimate {
        true => "an estimate of the cost model; nothing was measured".to_owned(),
        false => format!(
            "measured in {:.0} s; the same loop varies by {:.1} %, others took {:.0} % of the CPUs",
            c.budget_s,
            c.noise * 100.0,
            c.other_load * 100.0
        ),
    };
    let mut out = format!(
        "<p>{} kernels, {}, generator {}: {how}.</p>\n",
        profile.entries.len(),
        text(&profile.date),
        text(&profile.generator)
    );
    if !c.notes.is_empty() {
        let notes = c.notes.iter();
        let notes: String = notes.map(|n| format!("<li>{}</li>\n", text(n))).collect();
        out += &format!("<ul>\n{notes}</ul>\n");
    }
    out
}

/// Every picture that there is something for.
fn figures(profile: &Profile, data: &Data) -> Result<Vec<Figure>, DrawError> {
    let mut figures = Vec::new();
    let mut add = |title: &str, caption: String, svg: Option<String>| {
        if let Some(svg) = svg {
            let title = title.to_owned();
            figures.push(Figure {
                title,
                caption,
                svg,
            });
        }
    };
    let recorded: usize = data.recordings.iter().map(|r| r.candidates.len()).sum();
    let dots = match recorded {
        0 => "Winners only: <code>tune --record</code> keeps every candidate of a product, and <code>--recording</code> shows it.".to_owned(),
        n => format!("Small dots are {n} recorded candidates, large ones the winners of the profile."),
    };
    let roof = "Lines are what memory and the dot-product unit allow, measured beside the kernels; look-ups may pass the flat part.";
    add(
        "Roofline",
        format!("{roof} {dots}"),
        pictures::roofline(data)?,
    );
    for recording in &data.recordings {
        add(
            &format!("Search: {}", recording.title),
            "How near the best of all each tile comes with each family, layout and instruction set; other tunables as they suit it best; the 36 best tiles (tokens × rows).".into(),
            pictures::heat_map(recording)?,
        );
    }
    let model = "On the line the cost model was right; below it a kernel was faster than expected.";
    add(
        "Predicted against measured",
        format!("{model} {dots}"),
        pictures::predicted(data)?,
    );
    add(
        "Threads",
        "What more threads bring, by product, for one token and for the longest prompts.".into(),
        pictures::threads(data)?,
    );
    add(
        "Whole tokens",
        "Decoding and prefilling under three sets of kernels, run in turn; 100 % is the fastest. The set that is in the profile is marked.".into(),
        pictures::phases(profile)?,
    );
    add(
        "Noise",
        "Half of the 95 % interval of each winner's median. Below the line at 2 % two kernels are a tie anyway.".into(),
        pictures::noise(data)?,
    );
    Ok(figures)
}

/// All winners as a table.
fn winners(profile: &Profile) -> String {
    let row = |e: &Entry| {
        let v = &e.evidence;
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td><td>{:.1}</td><td>{:.0} %</td><td>{}</td></tr>\n",
            text(&e.spec.to_string()),
            data::words(e.product()),
            e.bucket,
            v.threads,
            v.median_ns / 1e3,
            v.gmac_per_s,
            v.roofline_fraction * 100.0,
            v.samples
        )
    };
    let rows: String = profile.entries.iter().map(row).collect();
    format!(
        "<h2>Winners</h2>\n<table>\n<tr><th>kernel</th><th>N × K</th><th>tokens</th><th>threads</th><th>µs</th><th>GMAC/s</th><th>of roofline</th><th>samples</th></tr>\n{rows}</table>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_harmless() {
        assert_eq!(
            text("<b>&\"\u{1b}\u{ffff}"),
            "&lt;b&gt;&amp;&quot;\\u{1b}\\u{ffff}"
        );
        assert_eq!(text(&"x".repeat(300)).chars().count(), NAME_CHARS + 1);
    }

    #[test]
    fn an_empty_profile_is_a_page_without_pictures() {
        let page = page(&Profile::default(), &[]).expect("drawn");
        assert!(!page.contains("<svg") && page.ends_with("</html>\n"));
    }
}
