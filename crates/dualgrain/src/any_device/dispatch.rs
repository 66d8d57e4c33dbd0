//! How an operation goes to the device that was chosen.

/// Calls the chosen device with the buffers inside the enums; they are all its own.
macro_rules! call {
    ($device:expr, [$($buffer:ident: $kind:ident),*], |$inner:ident| $call:expr) => {
        match ($device, $($buffer),*) {
            (AnyDevice::Cpu($inner), $($kind::Cpu($buffer)),*) => $call,
            #[cfg(feature = "cuda")]
            (AnyDevice::Cuda(card), $($kind::Cuda($buffer)),*) => {
                let $inner = &card.device;
                $call
            }
            #[cfg(feature = "cuda")]
            #[allow(unreachable_patterns, reason = "without buffers there is nothing to mix")]
            _ => panic!("a buffer of another device"),
        }
    };
}

/// Makes a buffer on the chosen device.
macro_rules! make {
    ($device:expr, $kind:ident, |$inner:ident| $make:expr) => {
        match $device {
            AnyDevice::Cpu($inner) => $make.map($kind::Cpu),
            #[cfg(feature = "cuda")]
            AnyDevice::Cuda(card) => {
                let $inner = &card.device;
                $make.map($kind::Cuda)
            }
        }
    };
}

/// As `call`, with an operand of a product before the other buffers.
macro_rules! product {
    ($device:expr, $a:ident, [$($buffer:ident: $kind:ident),*], |$inner:ident, $operand:ident| $call:expr) => {
        match $a {
            Operand::Float($a) => call!($device, [$a: Matrix, $($buffer: $kind),*], |$inner| {
                let $operand = Operand::Float($a);
                $call
            }),
            Operand::Int8($a) => call!($device, [$a: Quantized, $($buffer: $kind),*], |$inner| {
                let $operand = Operand::Int8($a);
                $call
            }),
        }
    };
}
