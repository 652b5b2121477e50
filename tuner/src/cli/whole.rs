//! The whole token on the command line: three sets of kernels in turn, told and put into the profile.

use crate::host::{Host, Measured};
use crate::tuning::Tuned;
use crate::whole::{self, Contestant, Stack, Whole};
use anyhow::Result;
use bitnet_cli::terminal::Terminal;
use bitnet_runtime::engine::EngineOptions;
use bitnet_runtime::format::Model;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::{self, Profile};
use std::sync::Arc;
use std::time::Duration;

/// Rounds of contestants.
const ROUNDS: usize = 9;

/// Models of more weights than this are not loaded three times over; their products alone are run.
const LOADED_WEIGHTS: usize = 400_000_000;

/// The tuned kernels against the untuned and the shipped ones, on whole tokens.
pub struct WholeToken {
    /// The model, if it is here.
    pub model: Option<Model>,
    /// Its ternary weights.
    pub weights: usize,
    /// Its products.
    pub products: Vec<(usize, usize)>,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Time for each number of threads.
    pub budget: Duration,
}

impl WholeToken {
    /// Runs them and puts the fastest of each phase into the profile.
    ///
    /// # Errors
    /// When the model cannot be packed or run.
    pub fn judge(
        self,
        terminal: &Terminal,
        host: &Host,
        measured: &Measured,
        made: &mut Tuned,
    ) -> Result<()> {
        let model = self
            .model
            .filter(|_| self.weights <= LOADED_WEIGHTS)
            .map(Arc::new);
        let shipped = profile::find_shipped(&host.machine, host.features).profile;
        for &threads in &self.threads {
            let pool = Arc::new(Pool::new(threads)?);
            let contestant = |p: &Profile| -> Result<Box<dyn Contestant>> {
                Ok(match &model {
                    Some(model) => Box::new(Whole::new(
                        model,
                        &pool,
                        (p, host.features),
                        &EngineOptions::default(),
                    )?),
                    None => {
                        let bytes = 2 * host.last_level_bytes();
                        Box::new(Stack::new(
                            &self.products,
                            self.weights,
                            bytes,
                            &pool,
                            (p, host.features),
                        )?)
                    }
                })
            };
            let mut all = vec![
                ("tuned", contestant(&made.profile)?),
                ("untuned", contestant(&Profile::default())?),
            ];
            if !shipped.entries.is_empty() {
                all.push(("shipped", contestant(&shipped)?));
            }
            let phases = whole::judge(&mut all, threads, ROUNDS, self.budget);
            let phases = phases.map_err(anyhow::Error::from_boxed)?;
            for phase in &phases {
                terminal.note(&whole::line(phase));
            }
            let mut profile = std::mem::take(&mut made.profile);
            whole::apply(&mut profile, &phases, &all, |like, spec| {
                made.entry_of(like, spec, measured)
            });
            made.profile = profile;
        }
        Ok(())
    }
}
