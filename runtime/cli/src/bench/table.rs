//! Rows of `bench` as tables: Markdown to read, CSV to calculate with.

use super::row::{Row, Spread};
use bitnet_runtime::inspect::human_bytes;

const DASH: &str = "-";

/// For a person.
pub fn markdown(rows: &[Row]) -> String {
    let compared = rows.iter().any(|r| r.compared.is_some());
    let (title, rule) = if compared {
        (" to the other |", "---|")
    } else {
        ("", "")
    };
    let mut out = format!(
        "| model | test | threads | tokens/s (min to max) | ms (min to max) | GB/s | GMAC/s | roofline | peak memory |{title}\n\
         |---|---|---|---|---|---|---|---|---|{rule}\n"
    );
    let spread = |s: Spread| format!("{:.2} ({:.2} to {:.2})", s.median, s.min, s.max);
    let number = |v: Option<f64>| v.map_or(DASH.into(), |v| format!("{v:.1}"));
    for r in rows {
        let cells = [
            // A bar would end its cell.
            r.model.replace('|', "\\|"),
            r.test.clone(),
            r.threads.to_string(),
            r.tokens_per_s.map_or(DASH.into(), spread),
            spread(r.ms),
            number(r.gb_per_s),
            number(r.gmac_per_s),
            r.roofline_fraction
                .map_or(DASH.into(), |f| format!("{:.0} %", f * 100.0)),
            r.peak_rss_bytes.map_or(DASH.into(), human_bytes),
        ];
        out += &format!("| {} |", cells.join(" | "));
        if compared {
            let speedup = r.compared.as_ref().map(|c| format!("{:.2}×", c.speedup));
            out += &format!(" {} |", speedup.unwrap_or(DASH.into()));
        }
        out.push('\n');
    }
    out
}

/// For a program.
pub fn csv(rows: &[Row]) -> String {
    let mut out = String::from(
        "model,test,threads,n_tokens,depth,median_tokens_per_s,min_tokens_per_s,max_tokens_per_s,median_ms,min_ms,max_ms,\
         bytes_per_token,gb_per_s,gmac_per_s,roofline_fraction,peak_rss_bytes,load_s,speedup\n",
    );
    fn cell(v: Option<impl ToString>) -> String {
        v.map_or(String::new(), |v| v.to_string())
    }
    for r in rows {
        let cells = [
            format!("\"{}\"", r.model.replace('"', "\"\"")),
            r.test.clone(),
            r.threads.to_string(),
            r.n_tokens.to_string(),
            r.depth.to_string(),
            cell(r.tokens_per_s.map(|s| s.median)),
            cell(r.tokens_per_s.map(|s| s.min)),
            cell(r.tokens_per_s.map(|s| s.max)),
            r.ms.median.to_string(),
            r.ms.min.to_string(),
            r.ms.max.to_string(),
            cell(r.bytes_per_token),
            cell(r.gb_per_s),
            cell(r.gmac_per_s),
            cell(r.roofline_fraction),
            cell(r.peak_rss_bytes),
            r.load_s.to_string(),
            cell(r.compared.as_ref().map(|c| c.speedup)),
        ];
        out += &cells.join(",");
        out.push('\n');
    }
    out
}
