//! The functions of MPI, over the two binary interfaces that there are.
//!
//! Both have the same functions and differ in what names communicators and types: Open MPI by addresses of objects of the library, MPICH
//! by numbers that its interface fixes (`mpi.h`; <https://www.mpich.org/abi/>).

use crate::error::Error;
use libloading::Library;
use std::ffi::{OsStr, c_char, c_int, c_void};
use std::fmt::Debug;
use std::path::Path;

/// A binary interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    OpenMpi,
    Mpich,
}

/// `MPI_COMM_WORLD` of MPICH.
const MPICH_COMM_WORLD: c_int = 0x4400_0000;
/// `MPI_BYTE` of MPICH.
const MPICH_BYTE: c_int = 0x4c00_010d;
/// `MPI_STATUS_IGNORE` of Open MPI, and of MPICH.
const STATUS_IGNORE: [usize; 2] = [0, 1];
/// What libraries of MPICH's interface say of themselves.
const MPICH_KIN: [&str; 3] = ["MPICH", "Intel(R) MPI", "MVAPICH"];
/// `MPI_THREAD_SERIALIZED`: any thread, one at a time.
const THREAD_SERIALIZED: c_int = 2;
/// Room for what a library or a machine is called; more than `MPI_MAX_LIBRARY_VERSION_STRING` of either (256 and 8192).
const NAME_BYTES: usize = 1 << 14;
/// The tag of all messages: there is one conversation.
const TAG: c_int = 0;

/// What is called of MPI, on all processes. Not before `init`, and by one thread at a time.
pub(crate) trait Calls: Debug + Send {
    /// The library in its own words, one line.
    fn version(&self) -> String;

    /// Rank, number of ranks, machine.
    fn init(&self) -> Result<(usize, usize, String), Error>;

    /// What all ranks give, one behind the other; `lengths` are those of all ranks.
    fn all_gather(&self, mine: &[u8], lengths: &[usize]) -> Result<Vec<u8>, Error>;

    fn send(&self, to: usize, values: &[f32]) -> Result<(), Error>;

    fn receive(&self, from: usize, values: &mut [f32]) -> Result<(), Error>;

    fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), Error>;

    fn finalize(&self);

    fn abort(&self);
}

/// The functions, where `H` names communicators and types.
#[derive(Debug)]
struct Functions<H> {
    comm: H,
    byte: H,
    status_ignore: *mut c_void,
    get_library_version: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int,
    init_thread: unsafe extern "C" fn(*mut c_int, *mut c_void, c_int, *mut c_int) -> c_int,
    comm_rank: unsafe extern "C" fn(H, *mut c_int) -> c_int,
    comm_size: unsafe extern "C" fn(H, *mut c_int) -> c_int,
    get_processor_name: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int,
    allgatherv: Allgatherv<H>,
    send: unsafe extern "C" fn(*const c_void, c_int, H, c_int, c_int, H) -> c_int,
    recv: unsafe extern "C" fn(*mut c_void, c_int, H, c_int, c_int, H, *mut c_void) -> c_int,
    bcast: unsafe extern "C" fn(*mut c_void, c_int, H, c_int, H) -> c_int,
    finalize: unsafe extern "C" fn() -> c_int,
    abort: unsafe extern "C" fn(H, c_int) -> c_int,
    /// Keeps the functions where they are.
    _library: Library,
}

/// `MPI_Allgatherv`.
type Allgatherv<H> =
    unsafe extern "C" fn(*const c_void, c_int, H, *mut c_void, *const c_int, *const c_int, H, H) -> c_int;

// SAFETY: handles are numbers or addresses of the library's constants, which belong to no thread; MPI is asked for calls from any thread,
// one at a time, and `&self` is not shared between threads (no `Sync`).
unsafe impl<H> Send for Functions<H> {}

/// A library, and of which kind it is.
pub(crate) fn open(path: &Path) -> Result<(Kind, Box<dyn Calls>), Error> {
    let library =
        load(path.as_os_str()).map_err(|error| Error::Load { path: path.to_owned(), reason: told(&error, path) })?;
    let symbol = |name: &str| {
        // SAFETY: only the address is taken; nothing is read or called here.
        let symbol = unsafe { library.get::<*const c_void>(name) };
        symbol.map(|symbol| *symbol)
    };
    match (symbol("ompi_mpi_comm_world"), symbol("ompi_mpi_byte")) {
        (Ok(comm), Ok(byte)) => {
            let functions = functions(library, path, (comm, byte), STATUS_IGNORE[0])?;
            Ok((Kind::OpenMpi, Box::new(functions)))
        }
        _ => {
            let functions = functions(library, path, (MPICH_COMM_WORLD, MPICH_BYTE), STATUS_IGNORE[1])?;
            let version = functions.version();
            match MPICH_KIN.iter().any(|kin| version.contains(kin)) {
                true => Ok((Kind::Mpich, Box::new(functions))),
                false => Err(Error::Foreign { path: path.to_owned(), reason: format!("it is {version}") }),
            }
        }
    }
}

/// Loads a library with its names for all: parts of Open MPI that it loads itself look for them.
#[cfg(unix)]
fn load(name: &OsStr) -> Result<Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: what runs while an MPI library is loaded are its own initialisers, which ask nothing of the process.
    unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) }.map(Into::into)
}

#[cfg(not(unix))]
fn load(name: &OsStr) -> Result<Library, libloading::Error> {
    // SAFETY: what runs while an MPI library is loaded are its own initialisers, which ask nothing of the process.
    unsafe { Library::new(name) }
}

/// The system's own words, which may begin with the file.
fn told(error: &libloading::Error, path: &Path) -> String {
    let told = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    told.strip_prefix(&format!("{}: ", path.display())).map(str::to_owned).unwrap_or(told)
}

fn functions<H>(library: Library, path: &Path, (comm, byte): (H, H), ignore: usize) -> Result<Functions<H>, Error> {
    macro_rules! function {
        ($name:literal) => {
            // SAFETY: the function of this name has this signature in every MPI (MPI 3.1, C bindings), with handles of this interface.
            match unsafe { library.get($name) } {
                Ok(function) => *function,
                Err(_) => {
                    return Err(Error::Foreign { path: path.to_owned(), reason: format!("it has no {}", $name) });
                }
            }
        };
    }
    Ok(Functions {
        comm,
        byte,
        status_ignore: std::ptr::without_provenance_mut(ignore),
        get_library_version: function!("MPI_Get_library_version"),
        init_thread: function!("MPI_Init_thread"),
        comm_rank: function!("MPI_Comm_rank"),
        comm_size: function!("MPI_Comm_size"),
        get_processor_name: function!("MPI_Get_processor_name"),
        allgatherv: function!("MPI_Allgatherv"),
        send: function!("MPI_Send"),
        recv: function!("MPI_Recv"),
        bcast: function!("MPI_Bcast"),
        finalize: function!("MPI_Finalize"),
        abort: function!("MPI_Abort"),
        _library: library,
    })
}

fn checked(function: &'static str, code: c_int) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(Error::Call { function, code }) }
}

fn count(bytes: usize) -> c_int {
    c_int::try_from(bytes).expect("calls are of less than 2 GiB")
}

/// What a function writes into a buffer and says the length of.
fn named(write: impl FnOnce(*mut c_char, *mut c_int) -> c_int) -> String {
    let (mut bytes, mut length) = (vec![0u8; NAME_BYTES], 0);
    write(bytes.as_mut_ptr().cast(), &mut length);
    bytes.truncate(usize::try_from(length).unwrap_or(0));
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl<H: Copy + Debug> Calls for Functions<H> {
    fn version(&self) -> String {
        // SAFETY: the buffer is longer than any name; this function may be called at any time (MPI 3.1, 8.1.1).
        let version = named(|text, length| unsafe { (self.get_library_version)(text, length) });
        let line = version.lines().next().unwrap_or_default();
        line.split(',').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn init(&self) -> Result<(usize, usize, String), Error> {
        let (mut given, mut rank, mut size) = (0, 0, 0);
        let null = std::ptr::null_mut();
        // SAFETY: no arguments are allowed (MPI 3.1, 8.7); `given` lives through the call.
        let code = unsafe { (self.init_thread)(null, null.cast(), THREAD_SERIALIZED, &mut given) };
        checked("MPI_Init_thread", code)?;
        if given < THREAD_SERIALIZED {
            return Err(Error::Threads { library: self.version() });
        }
        // SAFETY: MPI is initialised, and the numbers live through the calls.
        let codes = unsafe { [(self.comm_rank)(self.comm, &mut rank), (self.comm_size)(self.comm, &mut size)] };
        checked("MPI_Comm_rank", codes[0])?;
        checked("MPI_Comm_size", codes[1])?;
        // SAFETY: MPI is initialised, and the buffer is longer than any name.
        let host = named(|text, length| unsafe { (self.get_processor_name)(text, length) });
        Ok((usize::try_from(rank).unwrap_or(0), usize::try_from(size).unwrap_or(1), host))
    }

    fn all_gather(&self, mine: &[u8], lengths: &[usize]) -> Result<Vec<u8>, Error> {
        let counts: Vec<c_int> = lengths.iter().map(|&length| count(length)).collect();
        let starts = lengths.iter().scan(0, |next, length| Some(std::mem::replace(next, *next + length)));
        let starts: Vec<c_int> = starts.map(count).collect();
        let mut all = vec![0u8; lengths.iter().sum()];
        let (from, into) = (mine.as_ptr().cast(), all.as_mut_ptr().cast());
        let (comm, byte) = (self.comm, self.byte);
        // SAFETY: `all` has room for the counts of all ranks behind their starts, which are as many as there are ranks, and all buffers live
        // through the call.
        let code = unsafe {
            (self.allgatherv)(from, count(mine.len()), byte, into, counts.as_ptr(), starts.as_ptr(), byte, comm)
        };
        checked("MPI_Allgatherv", code).map(|()| all)
    }

    fn send(&self, to: usize, values: &[f32]) -> Result<(), Error> {
        let (bytes, length) = (values.as_ptr().cast(), count(size_of_val(values)));
        // SAFETY: the values are as long as is said, and live through the call, which returns when they may be changed.
        let code = unsafe { (self.send)(bytes, length, self.byte, count(to), TAG, self.comm) };
        checked("MPI_Send", code)
    }

    fn receive(&self, from: usize, values: &mut [f32]) -> Result<(), Error> {
        let (bytes, length) = (values.as_mut_ptr().cast(), count(size_of_val(values)));
        // SAFETY: the values are as long as is said, live through the call, and are numbers whatever bytes they get; no status is asked for.
        let code = unsafe { (self.recv)(bytes, length, self.byte, count(from), TAG, self.comm, self.status_ignore) };
        checked("MPI_Recv", code)
    }

    fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), Error> {
        let (bytes, length) = (values.as_mut_ptr().cast(), count(size_of_val(values)));
        // SAFETY: the values are as long as is said, live through the call, and are numbers whatever bytes they get.
        let code = unsafe { (self.bcast)(bytes, length, self.byte, count(from), self.comm) };
        checked("MPI_Bcast", code)
    }

    fn finalize(&self) {
        // SAFETY: MPI is initialised, and nothing is called after this.
        let _ = unsafe { (self.finalize)() };
    }

    fn abort(&self) {
        // SAFETY: MPI is initialised; all processes end.
        let _ = unsafe { (self.abort)(self.comm, 1) };
    }
}
