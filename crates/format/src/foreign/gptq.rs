//! GPTQ (arXiv 2210.17323) as AutoGPTQ and GPTQModel write it.
//!
//! `qweight` I32 `[k * bits / 32, n]`: codes follow each other along the inputs. `scales` `[groups, n]`. `qzeros` I32
//! `[groups, n * bits / 32]`: codes along the outputs, in the format `gptq` each less 1, in `gptq_v2` as they are. `g_idx` I32 `[k]`: the group
//! of each input; without it, runs of `group_size`.

use super::error::ForeignError;
use super::fields::Fields;
use super::packed::{Codes, Groups, PackedLinear, Scales, Zeros};
use super::part::{Named, Parts};
use super::pattern::Pattern;
use super::words::{Words, words_of};

/// Ends of the names of a linear's tensors.
pub const PARTS: [&str; 4] = ["qweight", "qzeros", "scales", "g_idx"];

/// How a folder's linears were quantized.
#[derive(Debug)]
pub struct Gptq {
    usual: Layout,
    /// Linears that have a layout of their own; the first that fits counts.
    own: Vec<(Pattern, Layout)>,
    /// Zero points are stored less 1.
    less_one: bool,
}

#[derive(Debug, Clone, Copy)]
struct Layout {
    bits: u32,
    group_size: Option<usize>,
    desc_act: bool,
}

impl Gptq {
    pub fn read(fields: &Fields<'_>) -> Result<Self, ForeignError> {
        if fields.flag("is_marlin_format", false)? {
            return Err(fields.refused("is_marlin_format", "false"));
        }
        let name = fields.spelling(["checkpoint_format", "format"]);
        let less_one = match fields.text(name)?.unwrap_or("gptq") {
            "gptq" => true,
            "gptq_v2" => false,
            _ => return Err(fields.refused(name, "gptq or gptq_v2")),
        };
        if !matches!(fields.text("pack_dtype")?, None | Some("int32")) {
            return Err(fields.refused("pack_dtype", "int32"));
        }
        let usual = Layout {
            bits: bits(fields)?.ok_or_else(|| fields.refused("bits", BITS))?,
            group_size: fields.group_size("group_size")?,
            desc_act: fields.flag("desc_act", false)?,
        };
        Ok(Self {
            usual,
            own: own_layouts(fields, usual)?,
            less_one,
        })
    }

    /// What was done, for people.
    pub fn described(&self) -> String {
        let groups = match self.usual.group_size {
            Some(len) => format!("groups of {len}"),
            None => "one group a row".to_owned(),
        };
        format!("gptq ({} bits in {groups})", self.usual.bits)
    }

    pub fn unpack<'a>(&self, name: &str, parts: &Parts<'a>) -> Result<PackedLinear<'a>, ForeignError> {
        let mut layout = self.usual;
        for (pattern, own) in &self.own {
            if pattern.fits(name)? {
                layout = *own;
                break;
            }
        }
        let bits = layout.bits;
        let qweight = parts.required("qweight", "")?;
        let words = Words::of(qweight)?;
        let [rows, n] = qweight.matrix()?;
        let k = inputs(rows, bits).ok_or_else(|| {
            qweight.misshapen(format!("a number of rows that holds whole codes of {bits} bits"))
        })?;
        let scales = parts.required("scales", "")?;
        let [num_groups, _] = scales.matrix()?;
        let scales = scales.shaped(&[num_groups, n])?;
        let zeros = parts.required("qzeros", "")?;
        let num_words = words_of(n, bits).unwrap_or(usize::MAX);
        let zeros = zeros.shaped(&[num_groups, num_words])?;
        Ok(PackedLinear {
            n,
            k,
            codes: Codes::AlongInputs { words, bits },
            scales: Scales {
                name: "scales",
                values: scales.floats()?,
                outputs: 1,
                strides: [1, n],
            },
            zeros: Zeros::AlongOutputs {
                words: Words::of(zeros)?,
                bits,
                less_one: self.less_one,
            },
            groups: layout.groups(k, parts, scales)?,
        })
    }
}

impl Layout {
    /// The groups of `k` inputs. Where the file lists them, that list counts, as it does for the programs that wrote it.
    fn groups(self, k: usize, parts: &Parts<'_>, scales: Named<'_>) -> Result<Groups, ForeignError> {
        let [num_groups, _] = scales.matrix()?;
        if let Some(listed) = parts.optional("g_idx") {
            return listed_groups(listed.shaped(&[k])?, num_groups);
        }
        if self.desc_act {
            return Err(ForeignError::Missing {
                part: "g_idx",
                reason: ", and `desc_act` says that groups are no runs of inputs",
            });
        }
        let len = self.group_size.unwrap_or(k).min(k);
        match k.div_ceil(len) == num_groups {
            true => Ok(Groups::Runs(len)),
            false => {
                Err(scales.misshapen(format!("{} rows: {k} inputs in groups of {len}", k.div_ceil(len))))
            }
        }
    }
}

/// The groups that an I32 tensor lists, each of them below `num_groups`.
pub(super) fn listed_groups(list: Named<'_>, num_groups: usize) -> Result<Groups, ForeignError> {
    let checked = |(index, got): (usize, i32)| match usize::try_from(got) {
        Ok(group) if group < num_groups => Ok(group),
        _ => Err(ForeignError::Group {
            part: list.name,
            index,
            got,
            last: num_groups.saturating_sub(1),
        }),
    };
    let groups = list.i32s()?.into_iter().enumerate().map(checked);
    Ok(Groups::Listed(groups.collect::<Result<_, _>>()?))
}

const BITS: &str = "2, 3, 4 or 8";

fn bits(fields: &Fields<'_>) -> Result<Option<u32>, ForeignError> {
    match fields.count("bits")? {
        None => Ok(None),
        Some(bits @ (2 | 3 | 4 | 8)) => Ok(Some(bits as u32)),
        Some(_) => Err(fields.refused("bits", BITS)),
    }
}

/// Inputs whose codes fill `rows` words, if they do so without a rest.
fn inputs(rows: usize, bits: u32) -> Option<usize> {
    let all = rows.checked_mul(32)?;
    all.is_multiple_of(bits as usize).then_some(all / bits as usize)
}

/// GPTQModel's `dynamic`: what differs for linears that a pattern fits. Those behind `-:` stayed floats, which the folder shows by itself.
fn own_layouts(fields: &Fields<'_>, usual: Layout) -> Result<Vec<(Pattern, Layout)>, ForeignError> {
    let Some(rules) = fields.object("dynamic")? else {
        return Ok(Vec::new());
    };
    let mut layouts = Vec::new();
    for (rule, value) in rules.entries() {
        let pattern = rule.strip_prefix("+:").unwrap_or(rule);
        if rule.starts_with("-:") {
            continue;
        }
        let own = Fields::of(value, &format!("dynamic.{rule}"))?;
        let layout = Layout {
            bits: bits(&own)?.unwrap_or(usual.bits),
            group_size: match own.value("group_size") {
                Some(_) => own.group_size("group_size")?,
                None => usual.group_size,
            },
            desc_act: own.flag("desc_act", usual.desc_act)?,
        };
        let pattern = Pattern::of(pattern).ok_or_else(|| fields.refused("dynamic", "regular expressions"))?;
        layouts.push((pattern, layout));
    }
    Ok(layouts)
}
