//! How pictures look: colours that a page of either kind can give its own values, sizes, axes.
//!
//! The library writes colours as numbers. Two of them, which no picture needs for itself, stand for ink and lines; the
//! page's style gives them a value for light and for dark.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::ops::Range;

/// Why a picture cannot be drawn.
pub type DrawError = DrawingAreaErrorKind<std::io::Error>;

/// Where a picture is drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Stands for text and axes.
pub const INK: RGBColor = RGBColor(1, 1, 1);

/// Stands for lines behind.
pub const LINE: RGBColor = RGBColor(2, 2, 2);

/// What there is much of.
pub const MANY: RGBColor = RGBColor(136, 146, 160);

/// Series that can be told apart.
pub const SERIES: usize = 6;

/// Their colours: as far from white as from black.
const COLOURS: [RGBColor; SERIES] = [
    RGBColor(47, 126, 206),
    RGBColor(222, 124, 32),
    RGBColor(43, 153, 96),
    RGBColor(205, 72, 92),
    RGBColor(137, 99, 190),
    RGBColor(24, 156, 170),
];

/// Width of a picture, in pixels.
pub const WIDTH: u32 = 900;

/// Size of text, in pixels.
pub const TEXT: i32 = 13;

/// The colour of series `i`.
pub fn colour(i: usize) -> RGBColor {
    COLOURS[i % SERIES]
}

/// What the page gives the two colours, light and dark.
pub fn themes() -> String {
    let mut style = String::from(
        ":root { color-scheme: light dark; --page: #ffffff; --ink: #1b2430; --soft: #596472; --line: #d9dee4 }\n\
        @media (prefers-color-scheme: dark) {\n  :root { --page: #12171d; --ink: #dfe5ec; --soft: #98a4b3; --line: #333d49 }\n}\n",
    );
    for (colour, name) in [(INK, "ink"), (LINE, "line")] {
        let RGBColor(r, g, b) = colour;
        for attribute in ["fill", "stroke"] {
            style += &format!(
                "svg [{attribute}=\"#{r:02X}{g:02X}{b:02X}\"] {{ {attribute}: var(--{name}) }}\n"
            );
        }
    }
    style
}

/// Text in ink.
pub fn ink() -> TextStyle<'static> {
    ("sans-serif", TEXT).into_font().color(&INK)
}

/// A picture `height` pixels high.
///
/// # Errors
/// [`DrawError`].
pub fn svg(
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>,
) -> Result<String, DrawError> {
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, (WIDTH, height)).into_drawing_area();
        draw(&area)?;
        area.present()?;
    }
    Ok(out)
}

/// The range of positive numbers on a logarithmic axis, with room on both sides; `None` without any.
pub fn span(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (mut least, mut most) = (f64::INFINITY, 0f64);
    for v in values {
        (least, most) = (least.min(v), most.max(v));
    }
    (least <= most).then(|| least / 1.4..most * 1.4)
}

/// Axes with names.
pub type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

/// Draws axes on `area`.
///
/// # Errors
/// [`DrawError`].
pub fn axes<'a, 'b, X, Y>(
    area: &'a Area<'b>,
    (x, y): (X, Y),
    (x_name, y_name): (&str, &str),
) -> Result<Chart<'a, 'b, X::CoordDescType, Y::CoordDescType>, DrawError>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 64)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(LINE)
        .light_line_style(TRANSPARENT)
        .label_style(ink())
        .axis_desc_style(ink())
        .x_desc(x_name)
        .y_desc(y_name)
        .x_label_formatter(&|v| number(*v))
        .y_label_formatter(&|v| number(*v))
        .draw()?;
    Ok(chart)
}

/// A number as an axis names it.
fn number(v: f64) -> String {
    match v.abs() {
        a if a >= 1e6 || (a > 0.0 && a < 1e-3) => format!("{v:.0e}"),
        a if a >= 10.0 || a == 0.0 => format!("{v:.0}"),
        _ => format!("{:.3}", v)
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
    }
}

/// Names what has been drawn with a label.
///
/// # Errors
/// [`DrawError`].
pub fn legend<'a, 'b: 'a, X, Y>(
    chart: &mut Chart<'a, 'b, X, Y>,
    position: SeriesLabelPosition,
) -> Result<(), DrawError>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(position)
        .label_font(ink())
        .margin(8)
        .draw()
}

/// The five corners of the `viridis` scale, which prints, and reads with any eye.
const VIRIDIS: [(u8, u8, u8); 5] = [
    (68, 1, 84),
    (59, 82, 139),
    (33, 145, 140),
    (94, 201, 98),
    (253, 231, 37),
];

/// The colour of a share, 0 to 1, and a colour for text on it.
pub fn heat(share: f64) -> (RGBColor, RGBColor) {
    let at = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let below = (at as usize).min(VIRIDIS.len() - 2);
    let (a, b, part) = (VIRIDIS[below], VIRIDIS[below + 1], at - below as f64);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
    let text = if share < 0.6 { WHITE } else { BLACK };
    (RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2)), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_colours_have_a_value_in_both_themes() {
        let style = themes();
        for name in ["--ink:", "--line:", "--page:"] {
            assert_eq!(style.matches(name).count(), 2, "{name} {style}");
        }
        let drawn = svg(40, |area| area.draw(&Text::new("x", (5, 5), ink()))).expect("drawn");
        assert!(drawn.contains("#010101"), "{drawn}");
        assert!(style.contains("svg [fill=\"#010101\"] { fill: var(--ink) }"));
    }

    #[test]
    fn numbers_and_spans_are_short() {
        let all = [0.0, 0.5, 1.25, 10.0, 12345.0, 2e7].map(number);
        assert_eq!(all, ["0", "0.5", "1.25", "10", "12345", "2e7"]);
        assert_eq!(span([].into_iter()), None);
        assert_eq!(span([14.0, 7.0].into_iter()), Some(5.0..19.599999999999998));
        assert_eq!(heat(1.0).0, RGBColor(253, 231, 37));
        assert_eq!(heat(0.0), (RGBColor(68, 1, 84), WHITE));
    }
}
