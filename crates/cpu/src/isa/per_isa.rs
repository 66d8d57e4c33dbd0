//! One source compiled for every instruction set: under `#[target_feature]` LLVM vectorizes it each time, and results are
//! equal bit for bit because the operations are.

/// Stamps out `fn name(isa, arguments)`, which runs `body(arguments)` compiled for `isa`.
///
/// `body` is `#[inline(always)]`, so each wrapper holds its own copy with the features it may use.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:expr) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "arguments of the operation and the instruction set")]
        $vis fn $name(isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                match isa {
                    $crate::Isa::Portable => {}
                    // SAFETY: a device holds an instruction set only after `is_available` said yes.
                    $crate::Isa::Avx2 | $crate::Isa::AvxVnni => return unsafe { avx2($($arg),*) },
                    $crate::Isa::Avx512Vnni | $crate::Isa::Amx => {
                        // SAFETY: as above.
                        return unsafe { avx512($($arg),*) };
                    }
                }
            }
            let _ = isa;
            $body($($arg),*)
        }
    };
}
pub(crate) use per_isa;
