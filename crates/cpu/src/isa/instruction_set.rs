//! Which instruction sets there are, and which of them runs.

use dualgrain_device::DeviceError;

#[cfg(target_arch = "x86_64")]
use super::amx;

/// An instruction set a kernel is written or compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Portable Rust; runs anywhere, fuses multiply-adds in software where it must.
    Portable,
    /// AVX2 with FMA and F16C (x86-64-v3).
    Avx2,
    /// AVX2 and the 256-bit VNNI instructions.
    AvxVnni,
    /// AVX-512 (F, BW, DQ, VL) with VNNI.
    Avx512Vnni,
    /// As [`Self::Avx512Vnni`], with AMX tiles for integer products of many tokens.
    Amx,
}

impl Isa {
    /// All instruction sets dualgrain knows, from the plainest to the fastest.
    pub const ALL: [Self; 5] = [
        Self::Portable,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512Vnni,
        Self::Amx,
    ];

    /// The name used in `DUALGRAIN_BACKEND`, in tests and in bench tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512Vnni => "avx512vnni",
            Self::Amx => "amx",
        }
    }

    /// What it was called in versions before, which environments and records may still say.
    fn old_name(self) -> Option<&'static str> {
        (self == Self::Portable).then_some("naive")
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Vnni.is_available() && amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::AvxVnni | Self::Avx512Vnni | Self::Amx => false,
        }
    }

    /// The instruction set `name` (capital letters or small) if this machine has it.
    ///
    /// # Errors
    /// [`DeviceError::InstructionSet`], listing the names that would work.
    pub fn by_name(name: &str) -> Result<Self, DeviceError> {
        let is_named = |isa: &Self| {
            let names = [Some(isa.name()), isa.old_name()];
            names
                .into_iter()
                .flatten()
                .any(|known| known.eq_ignore_ascii_case(name))
        };
        let found = available().into_iter().find(is_named);
        found.ok_or_else(|| not_available(name))
    }

    /// `DUALGRAIN_BACKEND` if it is set, else the fastest this machine has.
    pub(crate) fn chosen() -> Result<Self, DeviceError> {
        match std::env::var("DUALGRAIN_BACKEND") {
            Ok(name) if !name.is_empty() => Self::by_name(&name),
            _ => Ok(available().into_iter().next_back().unwrap_or(Self::Portable)),
        }
    }
}

/// Instruction sets of this machine, from the plainest to the fastest.
pub fn available() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
}

pub(crate) fn not_available(asked: &str) -> DeviceError {
    let names: Vec<_> = available().into_iter().map(Isa::name).collect();
    DeviceError::InstructionSet {
        asked: asked.to_owned(),
        available: names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_instruction_set_and_a_wrong_one_lists_what_would_work() {
        for isa in available() {
            assert_eq!(Isa::by_name(isa.name()), Ok(isa));
            assert_eq!(Isa::by_name(&isa.name().to_uppercase()), Ok(isa));
        }
        let error = Isa::by_name("sse9").unwrap_err();
        let DeviceError::InstructionSet { asked, available } = error else {
            panic!("{error}")
        };
        assert_eq!(asked, "sse9");
        assert!(available.starts_with("portable"), "{available}");
        assert_eq!(
            Isa::by_name("naive"),
            Ok(Isa::Portable),
            "the old name of the portable path"
        );
    }
}
