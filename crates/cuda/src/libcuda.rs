//! NVIDIA's driver, loaded when a card is asked for; the kernels as PTX, which it compiles for the card.

use crate::driver::{Address, Argument, Driver, Grid};
use cudarc::driver::{CudaContext, DriverError, result, sys};
use melo_vit::Error;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

/// Turing has no bfloat16 in its matrix unit.
const TURING: &str = include_str!("../kernels/ptx/compute_75.ptx");
const AMPERE: &str = include_str!("../kernels/ptx/compute_80.ptx");

/// A card, its module, and its functions by name.
#[derive(Debug)]
pub(crate) struct LibCuda {
    context: Arc<CudaContext>,
    name: String,
    memory: usize,
    capability: (i32, i32),
    functions: HashMap<&'static str, Function>,
}

#[derive(Debug)]
struct Function(sys::CUfunction);

// SAFETY: a function is a handle into a module that is never unloaded; the driver's interface may be called from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl LibCuda {
    /// The card of this number, which a process opens once.
    pub(crate) fn open(number: usize) -> Result<Arc<Self>, Error> {
        static CARDS: Mutex<BTreeMap<usize, Arc<LibCuda>>> = Mutex::new(BTreeMap::new());
        let mut cards = CARDS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(card) = cards.get(&number) {
            return Ok(Arc::clone(card));
        }
        let card = Arc::new(LibCuda::new(number)?);
        cards.insert(number, Arc::clone(&card));
        Ok(card)
    }

    fn new(number: usize) -> Result<Self, Error> {
        let device = format!("cuda:{number}");
        let failed = |reason: String| Error::Device { device: device.clone(), reason };
        // SAFETY: asks the loader for the driver's library, whose initialisers are the system's own.
        if !unsafe { sys::is_culib_present() } {
            return Err(failed("no NVIDIA driver is installed (libcuda.so was not found)".to_owned()));
        }
        let told = |error: DriverError| failed(said(error));
        result::init().map_err(told)?;
        let count = result::device::get_count().map_err(told)?;
        if number >= count as usize {
            return Err(failed(format!("the driver has {count} cards, numbered from 0")));
        }
        let context = CudaContext::new(number).map_err(told)?;
        let (name, capability) = (context.name().map_err(told)?, context.compute_capability().map_err(told)?);
        if capability < (7, 5) {
            let (major, minor) = capability;
            return Err(failed(format!(
                "{name} is of sm_{major}{minor}; sm_75 (Turing) is the first that can be used"
            )));
        }
        let memory = context.total_mem().map_err(told)?;
        let functions = functions(if capability < (8, 0) { TURING } else { AMPERE }).map_err(told)?;
        Ok(LibCuda { context, name, memory, capability, functions })
    }

    /// To be called first by whichever thread calls the driver.
    fn bind(&self) -> Result<(), String> {
        self.context.bind_to_thread().map_err(said)
    }
}

/// Every kernel of a module, which stays loaded as long as the process.
fn functions(ptx: &'static str) -> Result<HashMap<&'static str, Function>, DriverError> {
    let text = CString::new(ptx).expect("PTX is text");
    // SAFETY: the text ends with a zero, and the driver copies it.
    let module = unsafe { result::module::load_data(text.as_ptr().cast()) }?;
    let names = ptx.lines().filter_map(|line| line.strip_prefix(".visible .entry ")?.strip_suffix('('));
    let function = |name: &'static str| {
        let text = CString::new(name).expect("a name");
        // SAFETY: the module is loaded, and stays so.
        Ok((name, Function(unsafe { result::module::get_function(module, text) }?)))
    };
    names.map(function).collect()
}

fn said(error: DriverError) -> String {
    match error.error_string() {
        Ok(words) => words.to_string_lossy().into_owned(),
        Err(_) => format!("error {:?}", error.0),
    }
}

impl Driver for LibCuda {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn memory(&self) -> usize {
        self.memory
    }

    fn multiplies_bf16(&self) -> bool {
        self.capability >= (8, 0)
    }

    fn allocate(&self, bytes: usize) -> Result<Address, String> {
        self.bind()?;
        // SAFETY: a context is bound; nobody reads what was not written.
        unsafe { result::malloc_sync(bytes) }
            .map(Address)
            .map_err(|error| format!("{}, for {bytes} bytes", said(error)))
    }

    unsafe fn free(&self, at: Address) {
        if self.bind().is_ok() {
            // SAFETY: by the caller. What a broken context says here it says to the next call too.
            let _ = unsafe { result::free_sync(at.0) };
        }
    }

    unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), String> {
        self.bind()?;
        // SAFETY: by the caller.
        unsafe { result::memcpy_htod_sync(to.0, bytes) }.map_err(said)
    }

    unsafe fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), String> {
        self.bind()?;
        // SAFETY: by the caller.
        unsafe { result::memcpy_dtoh_sync(bytes, from.0) }.map_err(said)
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), String> {
        self.bind()?;
        // SAFETY: by the caller.
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, null_mut()) }.map_err(said)
    }

    unsafe fn clear(&self, at: Address, bytes: usize) -> Result<(), String> {
        self.bind()?;
        // SAFETY: by the caller.
        unsafe { result::memset_d8_async(at.0, 0, bytes, null_mut()) }.map_err(said)
    }

    unsafe fn launch(&self, kernel: &'static str, grid: Grid, arguments: &[Argument]) -> Result<(), String> {
        self.bind()?;
        let function = self.functions.get(kernel).ok_or_else(|| format!("no kernel `{kernel}`"))?;
        // Wide enough for each kind of argument; the kernel reads as many bytes as its own takes.
        let mut words: Vec<u64> = arguments.iter().map(Argument::word).collect();
        let mut pointers: Vec<*mut c_void> = words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let [x, y, z] = grid.blocks.map(|blocks| u32::try_from(blocks).expect("grids of networks are below 2^32"));
        let threads = (grid.threads as u32, 1, 1);
        // SAFETY: by the caller; the function is of a module that stays loaded, and arguments are copied by the call.
        unsafe { result::launch_kernel(function.0, (x, y, z), threads, 0, null_mut(), &mut pointers) }.map_err(said)
    }
}
