//! The whole token on the command line: three sets of kernels in turn, told and put into the profile.

use crate::deadline::Deadline;
use crate::host::{Host, Measured};
use crate::tuning::Tuned;
use crate::whole::{self, Build, Contestant, Contestants, Stack, Whole};
use anyhow::Result;
use bitnet_cli::terminal::Terminal;
use bitnet_codegen::TernaryMatrix;
use bitnet_runtime::engine::EngineOptions;
use bitnet_runtime::format::Model;
use bitnet_runtime::graph::Product;
use bitnet_runtime::pool::Pool;
use bitnet_runtime::profile::{self, Phase, Profile};
use std::sync::Arc;

/// Rounds of contestants.
const ROUNDS: usize = 9;

/// Models of more weights than this are not loaded three times over; their products alone are run.
pub const LOADED_WEIGHTS: usize = 400_000_000;

/// The tuned kernels against the untuned and the shipped ones, on whole tokens.
pub struct WholeToken {
    /// The model, if it is here.
    pub model: Option<Model>,
    /// Its ternary weights.
    pub weights: usize,
    /// Its products.
    pub products: Vec<Product>,
    /// Numbers of threads.
    pub threads: Vec<usize>,
}

impl WholeToken {
    /// Runs them, as far as there is time until `deadline`, and puts the fastest of each phase into the profile. What
    /// stands in the way is noted in the profile, which is good without it.
    pub fn judge(
        self,
        terminal: &Terminal,
        (host, measured): (&Host, &Measured),
        made: &mut Tuned,
        deadline: Deadline<'_>,
    ) {
        let model = self.model.filter(|_| self.weights <= LOADED_WEIGHTS);
        let model = model.map(Arc::new);
        let matrices = match &model {
            Some(_) => Vec::new(),
            None => whole::matrices(&self.products, deadline),
        };
        let tokens = Tokens {
            host,
            model,
            matrices,
            weights: self.weights,
            shipped: profile::find_shipped(&host.machine, host.features).profile,
        };
        for (i, &threads) in self.threads.iter().enumerate() {
            let share = deadline.left() / (self.threads.len() - i) as u32;
            let own = deadline.within(share);
            let mut profile = std::mem::take(&mut made.profile);
            let note = match tokens.run(&profile, threads, own) {
                Err(e) => Some(format!("whole tokens on {threads} threads: {e:#}")),
                Ok((_, phases)) if phases.is_empty() => Some(format!(
                    "no time was left to compare whole tokens on {threads} threads: a larger --budget does"
                )),
                Ok((all, phases)) => {
                    let of = match tokens.model {
                        Some(_) => "",
                        None => "products alone, ",
                    };
                    for phase in &phases {
                        terminal.note(&format!("{of}{}", whole::line(phase)));
                    }
                    whole::apply(&mut profile, &phases, &all, |like, spec| {
                        made.entry_of(like, spec, measured)
                    });
                    None
                }
            };
            profile.conditions.notes.extend(note);
            made.profile = profile;
        }
    }
}

/// What whole tokens are run on.
struct Tokens<'h> {
    host: &'h Host,
    model: Option<Arc<Model>>,
    matrices: Vec<(Product, TernaryMatrix)>,
    weights: usize,
    shipped: Profile,
}

impl Tokens<'_> {
    /// Runs `tuned`, untuned and shipped kernels in turn.
    fn run(
        &self,
        tuned: &Profile,
        threads: usize,
        deadline: Deadline<'_>,
    ) -> Result<(Contestants<'static>, Vec<Phase>)> {
        if self.model.is_none() && self.matrices.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let (pool, nothing) = (Arc::new(Pool::new(threads)?), Profile::default());
        let sets = [
            ("tuned", tuned),
            ("untuned", &nothing),
            ("shipped", &self.shipped),
        ];
        let builds = sets
            .into_iter()
            .filter(|(name, p)| *name != "shipped" || !p.entries.is_empty())
            .map(|(name, p)| {
                let pool = &pool;
                let build: Build<'_, anyhow::Error> = Box::new(move || self.contestant(p, pool));
                (name, build)
            });
        let mut all = whole::gather(builds.collect(), deadline)?;
        let phases = whole::judge(&mut all, threads, ROUNDS, deadline);
        Ok((all, phases.map_err(anyhow::Error::from_boxed)?))
    }

    fn contestant(&self, profile: &Profile, pool: &Arc<Pool>) -> Result<Box<dyn Contestant>> {
        let kernels = (profile, self.host.features);
        Ok(match &self.model {
            Some(model) => {
                let options = EngineOptions::default();
                Box::new(Whole::new(model, pool, kernels, &options)?)
            }
            None => {
                let bytes = 2 * self.host.last_level_bytes();
                let stack = Stack::new(&self.matrices, self.weights, bytes, pool, kernels);
                Box::new(stack?)
            }
        })
    }
}
