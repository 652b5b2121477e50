//! How a stored projection is to be read: one ladder of types for both formats.

use super::OpenOptions;
use super::assemble::Assembly;
use super::dtype::{self, Dtype, TernaryType};
use super::error::{LoadErrorKind, bad, unsupported};
use super::ternary::{Packing, RowOrder, Ternarise, TernarySource, tl2_sections};

/// What a reader knows of a projection before its type is looked at.
pub(super) struct Stored<'a> {
    /// The tensor's name, without `.weight`.
    pub(super) name: &'a str,
    /// The multiplier that lies beside it, if there is one.
    pub(super) scale: Option<f32>,
    /// The order of its rows.
    pub(super) order: RowOrder,
    /// What floats are.
    pub(super) floats: Floats,
}

/// What float weights stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Floats {
    /// Master weights, to be quantised by absmean.
    Masters,
    /// Trits times a scale.
    Trits,
    /// Themselves.
    Kept,
}

impl Stored<'_> {
    /// The recipe for reading it as an N×K matrix.
    pub(super) fn source(
        &self,
        model: &mut Assembly,
        (n, k): (usize, usize),
        options: &OpenOptions,
    ) -> Result<TernarySource, LoadErrorKind> {
        let name = format!("{}.weight", self.name);
        let packed = model.dtype_of(&name) == Some(Dtype::Ternary(TernaryType::HfPacked));
        // Four rows share a byte.
        let tensor = model.matrix(&name, if packed { n.div_ceil(4) } else { n }, k)?;
        let packing = match model.tensor(tensor).dtype {
            Dtype::Ternary(t) if self.floats == Floats::Kept => {
                let field = format!("tensor {name}");
                return Err(bad(
                    field,
                    "floats, which config.json says are kept",
                    t.name(),
                ));
            }
            Dtype::Ternary(TernaryType::I2S) => i2s(&name, n, k, options)?,
            Dtype::Ternary(t @ (TernaryType::TL1 | TernaryType::TL2)) => {
                tiled(&name, t, n, k, options)?
            }
            Dtype::Ternary(TernaryType::IQ2BNR4) if !n.is_multiple_of(4) => {
                let field = format!("tensor {name} (IQ2_BN_R4)");
                return Err(bad(field, "a multiple of 4 rows", n));
            }
            Dtype::Ternary(t) => Packing::Plain(t),
            Dtype::Float(_) => self.packing(model, tensor, k, options)?,
            Dtype::Other(t) => {
                let known = dtype::known_types(model.format());
                return Err(unsupported(format!("type {t} of tensor {name}"), known));
            }
        };
        Ok(TernarySource {
            tensor,
            n,
            k,
            packing,
            factor: self.scale.unwrap_or(1.0),
            order: self.order,
        })
    }

    fn packing(
        &self,
        model: &Assembly,
        tensor: usize,
        k: usize,
        options: &OpenOptions,
    ) -> Result<Packing, LoadErrorKind> {
        let how = match self.floats {
            Floats::Kept => return Ok(Packing::Kept),
            _ if self.scale.is_some() => Ternarise::AsStored,
            Floats::Masters => Ternarise::Absmean,
            Floats::Trits if options.absmean => Ternarise::Absmean,
            Floats::Trits => {
                model.require_ternary_look(tensor, k)?;
                Ternarise::AsStored
            }
        };
        Ok(Packing::Floats(how))
    }
}

fn i2s(name: &str, n: usize, k: usize, options: &OpenOptions) -> Result<Packing, LoadErrorKind> {
    if !(n * k).is_multiple_of(128) {
        let hint = "the last block is cut off in such files, their weights are lost";
        return Err(bad(
            format!("tensor {name} (I2_S)"),
            format!("a multiple of 128 elements: {hint}"),
            n * k,
        ));
    }
    Ok(Packing::I2S {
        block: options.i2s_block.codes(),
    })
}

fn tiled(
    name: &str,
    kind: TernaryType,
    n: usize,
    k: usize,
    options: &OpenOptions,
) -> Result<Packing, LoadErrorKind> {
    let what = format!("{} tensor {name} ({n}x{k})", kind.name());
    let Some(tiles) = options.tiles.get(n, k) else {
        let known = options.tiles.shapes();
        return Err(unsupported(
            format!("{what} without its tile sizes, which the file does not hold"),
            format!(
                "give the kernel_config.ini it was converted with (--tl-config); shapes given: {known}"
            ),
        ));
    };
    tiles
        .check(kind, n, k)
        .map_err(|e| bad(&what, "tile sizes that fit", e))?;
    if kind == TernaryType::TL2 {
        let need: usize = tl2_sections(n, k, tiles).iter().sum();
        let reserve = dtype::tl2_scale_offset(n, k).unwrap_or(0);
        if need > reserve {
            return Err(bad(
                &what,
                format!("tile sizes that need at most {reserve} bytes"),
                format!("{tiles}: {need}"),
            ));
        }
    }
    Ok(Packing::Tiled(kind, tiles))
}
