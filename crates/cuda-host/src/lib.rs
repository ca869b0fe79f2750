//! A driver that runs the kernels of `melo-cuda` on the processor, to hold the engine and every kernel to f64 where there is no card.
//!
//! The CUDA C of `crates/cuda/kernels` is compiled as C++20 by `$CXX`, else `c++`, through the words of `shim/host.h`, and loaded. Memory lies
//! between guards that are looked at after every launch, and is NaN until it is written.

use libloading::Library;
use melo_cuda::{Address, Argument, Driver, Grid};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes before and behind what is allocated.
const GUARD: usize = 64;
/// What they hold.
const PATTERN: u8 = 0xa5;
/// What memory holds before it is written: NaN, whichever float is read.
const UNWRITTEN: u8 = 0xff;
/// What it says it has, bytes.
const MEMORY: usize = 1 << 26;

type Parameters = unsafe extern "C" fn(*const c_char) -> *const c_char;
type Launch = unsafe extern "C" fn(*const c_char, *const c_uint, c_uint, *mut *mut c_void, c_int);

/// The compiled kernels.
#[derive(Debug)]
struct Compiled {
    parameters: Parameters,
    launch: Launch,
}

/// A card that is none.
#[derive(Debug)]
pub struct Host {
    kernels: &'static Compiled,
    /// Threads of a block run in the other order.
    falling: AtomicBool,
    /// Allocated: by address the bytes with both guards, as words so that they are aligned.
    memory: Mutex<HashMap<u64, (Vec<u64>, usize)>>,
}

/// One launch at a time in a process: what threads of a block share is static in the compiled kernels.
static LAUNCHING: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn compile() -> Result<Compiled, String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of crates");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let library = folder.path().join("kernels.so");
    let flags =
        ["-std=c++20", "-O2", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-fno-strict-aliasing", "-ffp-contract=off"];
    let mut command = Command::new(&compiler);
    command.args(flags).arg("-I").arg(crates.join("cuda/kernels")).arg(crates.join("cuda-host/shim/host.cpp"));
    let output = command.arg("-o").arg(&library).output().map_err(|error| format!("{compiler}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        // An older compiler is as good as none; an error in the kernels is not.
        if said.contains("c++20") {
            return Err(format!("{compiler} does not know C++20"));
        }
        panic!("the kernels do not compile as C++:\n{said}");
    }
    // SAFETY: the library was just made of this repository's source, and has no initialisers but of its own arrays.
    let library = unsafe { Library::new(&library) }.map_err(|error| error.to_string())?;
    // SAFETY: both functions have these types in `shim/host.cpp`.
    let found = unsafe {
        let parameters = *library.get::<Parameters>(b"host_parameters\0").map_err(|error| error.to_string())?;
        let launch = *library.get::<Launch>(b"host_launch\0").map_err(|error| error.to_string())?;
        Compiled { parameters, launch }
    };
    // The functions are called as long as the process lives.
    std::mem::forget(library);
    Ok(found)
}

impl Host {
    /// The processor as a card; none, with a word on standard error, where there is no C++20 compiler.
    pub fn open() -> Option<Arc<Self>> {
        static COMPILED: OnceLock<Result<Compiled, String>> = OnceLock::new();
        match COMPILED.get_or_init(compile) {
            Ok(kernels) => {
                Some(Arc::new(Host { kernels, falling: AtomicBool::new(false), memory: Mutex::new(HashMap::new()) }))
            }
            Err(reason) => {
                eprintln!("skipped: the kernels for GPUs are not run on the processor: {reason}");
                None
            }
        }
    }

    /// From now on the threads of a block run from the last to the first, a warp as far as it goes before the next: where that changes
    /// anything, a barrier is missing.
    pub fn run_backwards(&self) {
        self.falling.store(true, Ordering::Relaxed);
    }

    /// A letter a parameter, `p` a pointer, `u` a number, `f` a float; none for no kernel of this name.
    pub fn parameters(&self, kernel: &str) -> Option<String> {
        let name = CString::new(kernel).ok()?;
        // SAFETY: the name ends with a zero; what comes back is null or static.
        let letters = unsafe { (self.kernels.parameters)(name.as_ptr()) };
        // SAFETY: as above.
        (!letters.is_null()).then(|| unsafe { CStr::from_ptr(letters) }.to_string_lossy().into_owned())
    }

    /// Panics where a launch wrote beside what is allocated.
    fn check_guards(&self, kernel: &str) {
        for (words, bytes) in lock(&self.memory).values() {
            let all: &[u8] = bytes_of(words);
            let whole = |guard: &[u8]| guard.iter().all(|&byte| byte == PATTERN);
            assert!(whole(&all[..GUARD]) && whole(&all[GUARD + bytes..]), "`{kernel}` wrote beside {bytes} bytes");
        }
    }
}

fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: any bytes of a word may be read.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), 8 * words.len()) }
}

impl Driver for Host {
    fn name(&self) -> String {
        "processor".to_owned()
    }

    fn memory(&self) -> usize {
        MEMORY
    }

    fn multiplies_bf16(&self) -> bool {
        true
    }

    fn allocate(&self, bytes: usize) -> Result<Address, String> {
        if bytes + lock(&self.memory).values().map(|(_, bytes)| bytes).sum::<usize>() > MEMORY {
            return Err(format!("out of memory, for {bytes} bytes"));
        }
        let mut words = vec![u64::from_ne_bytes([PATTERN; 8]); (bytes + 2 * GUARD).div_ceil(8)];
        let at = words.as_mut_ptr() as u64 + GUARD as u64;
        // SAFETY: so many bytes lie between the guards.
        unsafe { std::ptr::write_bytes(at as *mut u8, UNWRITTEN, bytes) };
        lock(&self.memory).insert(at, (words, bytes));
        Ok(Address(at))
    }

    unsafe fn free(&self, at: Address) {
        lock(&self.memory).remove(&at.0).expect("freed once");
    }

    unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), String> {
        // SAFETY: by the caller.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len()) };
        self.check_guards("upload");
        Ok(())
    }

    unsafe fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), String> {
        // SAFETY: by the caller.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), String> {
        // SAFETY: by the caller.
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, bytes) };
        self.check_guards("copy");
        Ok(())
    }

    unsafe fn clear(&self, at: Address, bytes: usize) -> Result<(), String> {
        // SAFETY: by the caller.
        unsafe { std::ptr::write_bytes(at.0 as *mut u8, 0, bytes) };
        self.check_guards("clear");
        Ok(())
    }

    unsafe fn launch(&self, kernel: &'static str, grid: Grid, arguments: &[Argument]) -> Result<(), String> {
        let letter = |argument: &Argument| match argument {
            Argument::Pointer(_) => 'p',
            Argument::Number(_) => 'u',
            Argument::Float(_) => 'f',
        };
        let given: String = arguments.iter().map(letter).collect();
        assert_eq!(self.parameters(kernel), Some(given), "arguments of `{kernel}`");
        let mut words: Vec<u64> = arguments.iter().map(Argument::word).collect();
        let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let name = CString::new(kernel).map_err(|error| error.to_string())?;
        let blocks = grid.blocks.map(|blocks| blocks as c_uint);
        let falling = c_int::from(self.falling.load(Ordering::Relaxed));
        {
            let _one = lock(&LAUNCHING);
            // SAFETY: there is such a kernel, its parameters are of these kinds, and what it reaches by them is allocated by the caller.
            unsafe {
                let threads = grid.threads as c_uint;
                (self.kernels.launch)(name.as_ptr(), blocks.as_ptr(), threads, pointers.as_mut_ptr(), falling);
            }
        }
        self.check_guards(kernel);
        Ok(())
    }
}
