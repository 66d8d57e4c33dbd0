//! NVIDIA's run-time compiler: CUDA C++ text in, a cubin for one architecture out.

use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;

use crate::driver::{Handle, Library, Places, functions};
use crate::error::CudaError;

functions! {
    /// The compiler's functions.
    Functions {
        version = "nvrtcVersion" (*mut i32, *mut i32);
        num_archs = "nvrtcGetNumSupportedArchs" (*mut i32);
        archs = "nvrtcGetSupportedArchs" (*mut i32);
        create = "nvrtcCreateProgram" (
            *mut Handle, *const c_char, *const c_char, i32, *const *const c_char, *const *const c_char
        );
        compile = "nvrtcCompileProgram" (Handle, i32, *const *const c_char);
        destroy = "nvrtcDestroyProgram" (*mut Handle);
        log_size = "nvrtcGetProgramLogSize" (Handle, *mut usize);
        log = "nvrtcGetProgramLog" (Handle, *mut c_char);
        cubin_size = "nvrtcGetCUBINSize" (Handle, *mut usize);
        cubin = "nvrtcGetCUBIN" (Handle, *mut c_char);
    }
}

const PLACES: Places = Places {
    what: "NVRTC (NVIDIA's run-time compiler)",
    variable: "DUALGRAIN_NVRTC",
    names: if cfg!(windows) {
        &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"]
    } else {
        &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
    },
    companions: &["libnvrtc-builtins.so", "nvrtc-builtins64"],
    remedy: "install it (the PyPI package nvidia-cuda-nvrtc will do) or name its file in DUALGRAIN_NVRTC",
};

/// What to compile.
pub(crate) struct Program<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
    /// Files the text may include: name and text.
    pub headers: &'a [(&'a str, &'a str)],
    /// Options, the architecture among them.
    pub options: &'a [String],
}

/// The compiler.
pub(crate) struct Nvrtc {
    functions: Functions,
    version: (i32, i32),
    archs: Vec<i32>,
}

impl Nvrtc {
    /// The compiler, opened once.
    ///
    /// # Errors
    /// It is not on this machine, or too old to make cubins.
    pub fn open() -> Result<&'static Self, CudaError> {
        static NVRTC: OnceLock<Result<Nvrtc, CudaError>> = OnceLock::new();
        NVRTC.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, CudaError> {
        let functions = Functions::from_library(Library::open(&PLACES)?)?;
        let mut version = (0, 0);
        // SAFETY: writes two integers.
        let code = unsafe { (functions.version)(&raw mut version.0, &raw mut version.1) };
        check("nvrtcVersion", code)?;
        let mut count = 0;
        // SAFETY: writes one integer.
        check("nvrtcGetNumSupportedArchs", unsafe {
            (functions.num_archs)(&raw mut count)
        })?;
        let mut archs = vec![0; count.max(0) as usize];
        // SAFETY: writes as many integers as it said just now.
        check("nvrtcGetSupportedArchs", unsafe {
            (functions.archs)(archs.as_mut_ptr())
        })?;
        Ok(Self {
            functions,
            version,
            archs,
        })
    }

    /// Major and minor version.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Architectures it can compile for, e.g. 90.
    pub fn archs(&self) -> &[i32] {
        &self.archs
    }

    /// File it was opened from.
    pub fn library_name(&self) -> &str {
        self.functions.library.name()
    }

    /// Compiles to a cubin.
    ///
    /// # Errors
    /// [`CudaError::Compile`] with the compiler's messages.
    pub fn compile(&self, program: &Program<'_>, arch: &str) -> Result<Vec<u8>, CudaError> {
        let handle = Running::create(&self.functions, program)?;
        let options: Vec<CString> = program
            .options
            .iter()
            .map(|o| c_string(o))
            .collect::<Result<_, _>>()?;
        let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the handle is live; the strings outlive the call.
        let code =
            unsafe { (self.functions.compile)(handle.program, pointers.len() as i32, pointers.as_ptr()) };
        if code != 0 {
            return Err(CudaError::Compile {
                kernel: program.name.to_owned(),
                arch: arch.to_owned(),
                log: handle.log()?,
            });
        }
        handle.cubin()
    }
}

/// Version and file of the compiler, e.g. `13.0`.
///
/// # Errors
/// It is not on this machine.
pub fn compiler_version() -> Result<(String, String), CudaError> {
    let nvrtc = Nvrtc::open()?;
    let (major, minor) = nvrtc.version();
    Ok((format!("{major}.{minor}"), nvrtc.library_name().to_owned()))
}

/// A program that is destroyed when dropped.
struct Running<'a> {
    functions: &'a Functions,
    program: Handle,
}

impl<'a> Running<'a> {
    fn create(functions: &'a Functions, program: &Program<'_>) -> Result<Self, CudaError> {
        let (text, name) = (c_string(program.text)?, c_string(program.name)?);
        let (mut names, mut texts) = (Vec::new(), Vec::new());
        for (header_name, header_text) in program.headers {
            names.push(c_string(header_name)?);
            texts.push(c_string(header_text)?);
        }
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (names, texts, count) = (pointers(&names), pointers(&texts), names.len() as i32);
        let mut handle = std::ptr::null_mut();
        // SAFETY: all strings end with 0 and outlive the call, which copies them.
        let code = unsafe {
            (functions.create)(
                &raw mut handle,
                text.as_ptr(),
                name.as_ptr(),
                count,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        check("nvrtcCreateProgram", code)?;
        Ok(Self {
            functions,
            program: handle,
        })
    }

    fn log(&self) -> Result<String, CudaError> {
        let mut len = 0;
        // SAFETY: writes one size.
        check("nvrtcGetProgramLogSize", unsafe {
            (self.functions.log_size)(self.program, &raw mut len)
        })?;
        let mut log = vec![0u8; len.max(1)];
        // SAFETY: writes as many bytes as it said just now, a 0 last.
        check("nvrtcGetProgramLog", unsafe {
            (self.functions.log)(self.program, log.as_mut_ptr().cast())
        })?;
        let text = CStr::from_bytes_until_nul(&log).unwrap_or_default();
        Ok(text.to_string_lossy().into_owned())
    }

    fn cubin(&self) -> Result<Vec<u8>, CudaError> {
        let mut len = 0;
        // SAFETY: writes one size.
        check("nvrtcGetCUBINSize", unsafe {
            (self.functions.cubin_size)(self.program, &raw mut len)
        })?;
        let mut cubin = vec![0u8; len];
        // SAFETY: writes as many bytes as it said just now.
        check("nvrtcGetCUBIN", unsafe {
            (self.functions.cubin)(self.program, cubin.as_mut_ptr().cast())
        })?;
        Ok(cubin)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        unsafe { (self.functions.destroy)(&raw mut self.program) };
    }
}

fn c_string(text: &str) -> Result<CString, CudaError> {
    CString::new(text).map_err(|_| CudaError::Compile {
        kernel: text.chars().take(40).collect(),
        arch: String::new(),
        log: "the text holds a zero byte".to_owned(),
    })
}

fn check(call: &'static str, code: i32) -> Result<(), CudaError> {
    match code {
        0 => Ok(()),
        code => Err(CudaError::Call {
            call,
            code,
            words: "NVRTC refused".to_owned(),
        }),
    }
}
