//! `bench --compare`: the rows of another run, from its JSON.

use super::row::{Compared, Row};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::path::Path;

/// No list of rows is longer.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
struct Median {
    median: f64,
}

/// What is needed of a row; whatever else it holds, and lacks, is another version's business.
#[derive(Deserialize)]
struct OtherRow {
    test: String,
    threads: usize,
    tokens_per_s: Option<Median>,
    ms: Option<Median>,
    #[serde(default)]
    model: String,
    #[serde(default)]
    host: String,
}

/// The rows of another run.
pub struct Other {
    path: String,
    rows: Vec<OtherRow>,
}

impl Other {
    /// Reads what `bench -o json` wrote.
    ///
    /// # Errors
    /// When it cannot be read or holds no rows.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = bitnet_runtime::small_file::read(path, MAX_BYTES)
            .with_context(|| format!("cannot read {name}"))?;
        let rows: Vec<OtherRow> = serde_json::from_slice(&bytes)
            .with_context(|| format!("{name} is no list of rows as `bench -o json` writes it"))?;
        if rows.is_empty() {
            bail!("{name} holds no rows to compare with");
        }
        Ok(Self { path: name, rows })
    }

    /// Notes in each row how it compares; what a reader should know of the comparison.
    pub fn set_against(&self, rows: &mut [Row]) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |text: String| {
            if !notes.contains(&text) {
                notes.push(text);
            }
        };
        for row in rows {
            let same = |o: &&OtherRow| o.test == row.test && o.threads == row.threads;
            let Some(other) = self.rows.iter().find(same) else {
                note(format!(
                    "{} has no {} with {} threads",
                    self.path, row.test, row.threads
                ));
                continue;
            };
            for (what, own, others) in [
                ("model", &row.model, &other.model),
                ("CPU", &row.host, &other.host),
            ] {
                if own != others {
                    note(format!("{} is of another {what}: {others}", self.path));
                }
            }
            let speeds = row.tokens_per_s.zip(other.tokens_per_s.as_ref());
            let figure = match (speeds, &other.ms) {
                (Some((own, other)), _) => Some((other.median, own.median / other.median)),
                (None, Some(ms)) => Some((ms.median, ms.median / row.ms.median)),
                (None, None) => None,
            };
            row.compared =
                figure
                    .filter(|(_, speedup)| speedup.is_finite())
                    .map(|(other, speedup)| Compared {
                        path: self.path.clone(),
                        other,
                        speedup,
                    });
        }
        notes
    }
}
