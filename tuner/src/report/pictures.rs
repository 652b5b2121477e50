//! The pictures: each draws its part of the [`Data`] on axes, or is none where there is nothing to show.

use super::chart::{self, Area, DrawError, INK, LINE, MANY, SERIES, TEXT, WIDTH, colour, ink};
use super::data::{Curve, Data, Point, Recording};
use crate::search::TIE;
use bitnet_runtime::profile::{Phase, Profile};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A picture, if there is something in it.
type Picture = Result<Option<String>, DrawError>;

/// Bands of one phase and of one set of kernels, in pixels.
const PHASE_HEIGHT: i32 = 34;
const BAR_HEIGHT: i32 = 24;

/// Medians nearer than this are a tie.
const TIE_PERCENT: f64 = (TIE - 1.0) * 100.0;

/// Phases, and sets of kernels, that are drawn.
const MAX_PHASES: usize = 16;
const MAX_SETS: usize = 8;

/// Numbers of threads in some order, so that each has a colour.
fn thread_counts(data: &Data) -> Vec<usize> {
    let mut counts: Vec<usize> = data.winners.iter().map(|p| p.threads).collect();
    counts.extend(data.roofs.iter().map(|r| r.threads));
    counts.sort_unstable();
    counts.dedup();
    counts.truncate(SERIES);
    counts
}

fn recorded(data: &Data) -> impl Iterator<Item = &Point> + Clone {
    let all = data.recordings.iter().flat_map(|r| &r.candidates);
    all.map(|c| &c.point)
}

/// A round mark in a legend.
fn mark(colour: RGBColor) -> impl Fn((i32, i32)) -> Circle<(i32, i32), i32> {
    move |(x, y)| Circle::new((x + 10, y), 5, colour.filled())
}

/// Multiply-accumulates a second against those for each byte of weights, under the roofs.
pub fn roofline(data: &Data) -> Picture {
    let all = || data.winners.iter().chain(recorded(data));
    let Some(x) = chart::span(all().map(|p| p.macs_per_byte)) else {
        return Ok(None);
    };
    let tops = data.roofs.iter().map(|r| r.peak_gmac_per_s);
    let Some(y) = chart::span(all().map(|p| p.gmac_per_s).chain(tops)) else {
        return Ok(None);
    };
    let names = ("multiply-accumulates for each byte of weights", "GMAC/s");
    let draw =
        |area: &Area<'_>| {
            let log = (x.clone().log_scale(), y.clone().log_scale());
            let mut chart = chart::axes(area, log, names)?;
            chart.draw_series(recorded(data).map(|p| {
                Circle::new((p.macs_per_byte, p.gmac_per_s), 2, MANY.mix(0.45).filled())
            }))?;
            for (i, threads) in thread_counts(data).into_iter().enumerate() {
                for roof in data.roofs.iter().filter(|r| r.threads == threads) {
                    let at = |x: f64| (x, (x * roof.read_gb_per_s).min(roof.peak_gmac_per_s));
                    let corner = roof.peak_gmac_per_s / roof.read_gb_per_s;
                    let line = [x.start, corner.clamp(x.start, x.end), x.end].map(at);
                    let line = line.map(|(x, v)| (x, v.max(y.start)));
                    chart.draw_series(LineSeries::new(line, colour(i).stroke_width(2)))?;
                }
                let own = data.winners.iter().filter(|p| p.threads == threads);
                chart
                    .draw_series(own.map(|p| {
                        Circle::new((p.macs_per_byte, p.gmac_per_s), 4, colour(i).filled())
                    }))?
                    .label(format!("{threads} threads"))
                    .legend(mark(colour(i)));
            }
            chart::legend(&mut chart, SeriesLabelPosition::LowerRight)
        };
    chart::svg(460, draw).map(Some)
}

/// Expected against measured times.
pub fn predicted(data: &Data) -> Picture {
    let known = |p: &&Point| p.predicted_ns.is_finite() && p.predicted_ns > 1e-6;
    let winners = || data.winners.iter().filter(known);
    let many = || recorded(data).filter(known);
    let times = winners().chain(many());
    let times = times.flat_map(|p| [p.ns / 1e3, p.predicted_ns / 1e3]);
    let Some(range) = chart::span(times) else {
        return Ok(None);
    };
    let at = |p: &Point| (p.predicted_ns / 1e3, p.ns / 1e3);
    let draw = |area: &Area<'_>| {
        let log = || range.clone().log_scale();
        let mut chart = chart::axes(area, (log(), log()), ("expected, µs", "measured, µs"))?;
        let ends = [(range.start, range.start), (range.end, range.end)];
        chart.draw_series(LineSeries::new(ends, INK.stroke_width(1)))?;
        if many().next().is_some() {
            chart
                .draw_series(many().map(|p| Circle::new(at(p), 2, MANY.mix(0.45).filled())))?
                .label("candidates")
                .legend(mark(MANY));
        }
        chart
            .draw_series(winners().map(|p| Circle::new(at(p), 4, colour(0).filled())))?
            .label("winners")
            .legend(mark(colour(0)));
        chart::legend(&mut chart, SeriesLabelPosition::UpperLeft)
    };
    chart::svg(460, draw).map(Some)
}

/// Speed by threads: decoding on the left, long prompts on the right.
pub fn threads(data: &Data) -> Picture {
    if data.curves.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let draw = |area: &Area<'_>| {
        let halves = area.split_evenly((1, 2));
        for (half, (curves, name)) in halves.iter().zip(
            data.curves
                .iter()
                .zip(["threads (one token)", "threads (long prompts)"]),
        ) {
            if !curves.is_empty() {
                draw_curves(half, curves, name)?;
            }
        }
        Ok(())
    };
    chart::svg(360, draw).map(Some)
}

fn draw_curves(area: &Area<'_>, curves: &[Curve], name: &str) -> Result<(), DrawError> {
    let points = || curves.iter().flat_map(|c| &c.points);
    let most = points().map(|p| p.0).max().unwrap_or(1) as f64;
    let top = points().map(|p| p.1).fold(0.0, f64::max);
    let ranges = (0.0..most + 0.5, 0.0..top * 1.35);
    let mut chart = chart::axes(area, ranges, (name, "GMAC/s"))?;
    for (i, curve) in curves.iter().enumerate() {
        let points: Vec<(f64, f64)> = curve.points.iter().map(|&(t, v)| (t as f64, v)).collect();
        chart.draw_series(LineSeries::new(points.clone(), colour(i).stroke_width(2)))?;
        chart
            .draw_series(
                points
                    .into_iter()
                    .map(|p| Circle::new(p, 4, colour(i).filled())),
            )?
            .label(&*curve.title)
            .legend(mark(colour(i)));
    }
    chart::legend(&mut chart, SeriesLabelPosition::UpperLeft)
}

/// A set's name as it can be shown: it comes from a file.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_control() && *c < '\u{fffe}')
        .take(40)
        .collect()
}

/// The sets of kernels of a phase with their speeds.
fn sets(phase: &Phase) -> Vec<(&String, f64)> {
    let all = phase.tokens_per_s.iter().map(|(name, v)| (name, *v));
    let sound = all.filter(|(_, v)| v.is_finite() && *v > 0.0);
    sound.take(MAX_SETS).collect()
}

/// Whole tokens: a bar for each set of kernels.
pub fn phases(profile: &Profile) -> Picture {
    let phases = profile.phases.iter().take(MAX_PHASES);
    let phases: Vec<&Phase> = phases.filter(|p| !sets(p).is_empty()).collect();
    if phases.is_empty() {
        return Ok(None);
    }
    let heights = phases
        .iter()
        .map(|p| PHASE_HEIGHT + sets(p).len() as i32 * BAR_HEIGHT);
    let height = heights.sum::<i32>() + 16;
    chart::svg(height as u32, |area| {
        let mut y = 8;
        for phase in &phases {
            let head = format!("{} on {} threads", plain(&phase.name), phase.threads);
            area.draw(&Text::new(head, (12, y + 8), ink()))?;
            y += PHASE_HEIGHT;
            let best = sets(phase).iter().map(|s| s.1).fold(0.0, f64::max);
            for (i, (name, speed)) in sets(phase).into_iter().enumerate() {
                draw_bar(
                    area,
                    y,
                    colour(i),
                    (name, speed, best),
                    *name == phase.chosen,
                )?;
                y += BAR_HEIGHT;
            }
        }
        Ok(())
    })
    .map(Some)
}

fn draw_bar(
    area: &Area<'_>,
    y: i32,
    colour: RGBColor,
    (name, speed, best): (&str, f64, f64),
    is_chosen: bool,
) -> Result<(), DrawError> {
    const LEFT: i32 = 120;
    let widest = f64::from(WIDTH as i32 - LEFT - 240);
    let right = LEFT + (widest * speed / best) as i32;
    let middle = y + (BAR_HEIGHT - TEXT) / 2 - 1;
    area.draw(&Text::new(plain(name), (24, middle), ink()))?;
    let corners = [(LEFT, y + 2), (right.max(LEFT + 1), y + BAR_HEIGHT - 3)];
    area.draw(&Rectangle::new(corners, colour.filled()))?;
    let told = format!(
        "{speed:.1} tokens/s, {:.1} %{}",
        speed / best * 100.0,
        if is_chosen { ", in the profile" } else { "" }
    );
    area.draw(&Text::new(told, (right + 8, middle), ink()))
}

/// Half intervals of all winners, the least first.
pub fn noise(data: &Data) -> Picture {
    let mut spread: Vec<f64> = data.spread.iter().map(|s| s * 100.0).collect();
    if spread.is_empty() {
        return Ok(None);
    }
    spread.sort_by(f64::total_cmp);
    let (n, noise) = (spread.len() as f64, data.noise * 100.0);
    let levels = [noise, TIE_PERCENT].into_iter().filter(|v| *v > 0.0);
    // What is surer than a hundredth of a percent is sure.
    let shown = spread.iter().map(|s| s.max(0.01));
    let Some(range) = chart::span(shown.clone().chain(levels)) else {
        return Ok(None);
    };
    chart::svg(320, |area| {
        let names = ("winners, the surest first", "± % of the median");
        let axes = (0.0..n + 1.0, range.clone().log_scale());
        let mut chart = chart::axes(area, axes, names)?;
        for (level, colour, label) in [
            (TIE_PERCENT, INK, "2 %: a tie"),
            (noise, MANY, "one loop, over and over"),
        ] {
            if level > 0.0 {
                let line = [(0.0, level), (n + 1.0, level)];
                chart
                    .draw_series(LineSeries::new(line, colour.stroke_width(1)))?
                    .label(label)
                    .legend(mark(colour));
            }
        }
        let points = shown.enumerate().map(|(i, s)| (i as f64 + 1.0, s));
        chart
            .draw_series(points.map(|p| Circle::new(p, 4, colour(0).filled())))?
            .label("winners")
            .legend(mark(colour(0)));
        chart::legend(&mut chart, SeriesLabelPosition::UpperLeft)
    })
    .map(Some)
}

/// Shares below this are all the coldest colour.
const COLDEST: f64 = 0.4;

/// Sizes of the heat map's parts, in pixels.
const ROW: i32 = 20;
const LEFT: i32 = 90;
const BELOW: i32 = 190;

/// How near the best each tile comes under each family, layout and instruction set.
pub fn heat_map(recording: &Recording) -> Picture {
    let heat = recording.heat();
    if heat.cells.is_empty() {
        return Ok(None);
    }
    let (rows, columns) = (heat.rows.len() as i32, heat.columns.len() as i32);
    let wide = (WIDTH as i32 - LEFT - 12) / columns;
    chart::svg((rows * ROW + BELOW + 12) as u32, |area| {
        for (&(row, column), &share) in &heat.cells {
            let (x, y) = (LEFT + column as i32 * wide, 8 + row as i32 * ROW);
            let (colour, text) = chart::heat((share - COLDEST) / (1.0 - COLDEST));
            let corners = [(x, y), (x + wide - 1, y + ROW - 1)];
            area.draw(&Rectangle::new(corners, colour.filled()))?;
            if wide >= 22 {
                let style = ("sans-serif", 11).into_font().color(&text);
                let style = style.pos(Pos::new(HPos::Center, VPos::Center));
                let told = format!("{:.0}", share * 100.0);
                area.draw(&Text::new(told, (x + wide / 2, y + ROW / 2), style))?;
            }
        }
        for (row, name) in heat.rows.iter().enumerate() {
            let right = ink().pos(Pos::new(HPos::Right, VPos::Center));
            let y = 8 + row as i32 * ROW + ROW / 2;
            area.draw(&Text::new(name.as_str(), (LEFT - 8, y), right))?;
        }
        let bottom = 8 + rows * ROW;
        area.draw(&PathElement::new(
            [(LEFT, bottom), (LEFT + columns * wide, bottom)],
            LINE,
        ))?;
        for (column, name) in heat.columns.iter().enumerate() {
            let font = ("sans-serif", TEXT).into_font();
            let style = font.transform(FontTransform::Rotate270).color(&INK);
            let style = style.pos(Pos::new(HPos::Right, VPos::Center));
            let x = LEFT + column as i32 * wide + wide / 2;
            area.draw(&Text::new(name.as_str(), (x, bottom + 8), style))?;
        }
        Ok(())
    })
    .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sets_are_plain() {
        assert_eq!(plain("a\u{1b}[2Jb"), "a[2Jb");
        assert_eq!(plain(&"x".repeat(99)).len(), 40);
    }

    #[test]
    fn whole_tokens_are_bars_of_the_share_of_the_best() {
        let phase = Phase {
            name: "decode".into(),
            threads: 2,
            batch: 1,
            chosen: "tuned".into(),
            tokens_per_s: [("tuned".to_owned(), 30.0), ("untuned".to_owned(), 15.0)].into(),
        };
        let profile = Profile {
            phases: vec![phase],
            ..Profile::default()
        };
        let svg = phases(&profile).expect("drawn").expect("something");
        for word in ["decode on 2 threads", "100.0 %, in the profile", "50.0 %"] {
            assert!(svg.contains(word), "{word}: {svg}");
        }
        assert!(phases(&Profile::default()).expect("drawn").is_none());
    }
}
