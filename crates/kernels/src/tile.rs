//! Tiles of AMX: 16 rows of 64 bytes, and the product of two of them (Intel SDM, volume 1, chapter 18).
//!
//! Compilers know nothing of what these instructions leave in a tile, so that each sum is one piece of assembly: cleared,
//! added up over all its blocks, stored. A thread has its own tiles; [`configure`] gives them their shape and [`release`]
//! empties them, after which the system need not save them any more.

use crate::cpuid::cpuid;
use std::arch::asm;
use std::arch::x86_64::_xgetbv;
use std::sync::OnceLock;

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;
/// Bytes of a tile.
pub(crate) const BYTES: usize = ROWS * 64;

/// `XCR0` and CPUID leaf 0xD: the components that hold the configuration and the data of tiles.
const XTILECFG: u32 = 17;
const XTILEDATA: u32 = 18;
/// CPUID leaf 7, EDX.
const AMX_BF16: u32 = 1 << 22;
const AMX_TILE: u32 = 1 << 24;
const AMX_INT8: u32 = 1 << 25;
/// Linux: `arch_prctl` and its request for the permission to use a component (Documentation/arch/x86/xstate.rst).
const SYS_ARCH_PRCTL: i64 = 158;
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;

/// True when the processor has tiles and the system lets this process use them, which is asked once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_tiles() && is_permitted())
}

fn has_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const STATES: u64 = 1 << XTILECFG | 1 << XTILEDATA;
    if cpuid(0).eax < 7 || cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    const FEATURES: u32 = AMX_BF16 | AMX_TILE | AMX_INT8;
    // SAFETY: the system has set OSXSAVE, so that XGETBV is an instruction.
    let enabled = unsafe { xcr0() };
    cpuid(7).edx & FEATURES == FEATURES && enabled & STATES == STATES
}

/// # Safety
/// The system has set OSXSAVE.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}

fn is_permitted() -> bool {
    let result: i64;
    // SAFETY: a system call that reads no memory of ours; the kernel overwrites `rcx` and `r11`. A kernel that does not know
    // the request answers with an error.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") u64::from(XTILEDATA),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// The operand of `LDTILECFG` (Intel SDM, volume 1, table 18-1).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles whole.
static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_of_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Gives the tiles of this thread their shape.
///
/// # Safety
/// [`is_available`].
pub(crate) unsafe fn configure() {
    // SAFETY: the operand is a valid configuration of 64 bytes; the caller promises the instruction.
    unsafe {
        asm!(
            "ldtilecfg [{}]",
            in(reg) &CONFIGURATION,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Empties the tiles of this thread.
///
/// # Safety
/// [`is_available`].
pub(crate) unsafe fn release() {
    // SAFETY: the caller promises the instruction.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
}

/// The sums of two strips of rows and two panels of columns, a tile each.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(crate) struct Sums<T>([[[T; 16]; ROWS]; 4]);

/// Where the tiles of a strip of rows lie.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// Bytes from a row to the next.
    pub(crate) stride: usize,
    /// Bytes from a tile to the next.
    pub(crate) step: usize,
}

impl<T> Sums<T> {
    /// Row `i` of 32, of panel 0 or 1.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize, panel: usize) -> &[T; 16] {
        &self.0[i / ROWS * 2 + panel][i % ROWS]
    }
}

/// Stamps a function that multiplies strips of a left operand with panels of a right one, over `blocks` tiles of each.
///
/// Tiles 0 to 3 hold sums, of which each strip has two; 4 and 5 a tile of each strip, 6 and 7 one of each panel.
macro_rules! stamp {
    (
        $name:ident, $sum:ty, $a:ty, $b:ty, ($a0:ident, $a1:ident, $b0:ident, $b1:ident): $pointers:pat = $from:expr,
        clear [$($clear:literal)*], step [$($step:expr),*], store [$($store:literal)*]
    ) => {
        /// # Safety
        /// [`is_available`], and [`configure`] was called on this thread; every pointer is to `blocks` tiles, those of the left
        /// operand as `rows` says and those of the right one in one piece.
        pub(crate) unsafe fn $name(a: $a, b: $b, rows: Rows, blocks: usize, sums: &mut Sums<$sum>) {
            let $pointers = $from(a, b);
            // SAFETY: the caller's promises; a row of a panel's tile is 64 bytes, and 1 KiB further lies the next tile.
            unsafe {
                asm!(
                    $($clear,)*
                    "test {blocks}, {blocks}",
                    "jz 3f",
                    "2:",
                    $($step,)*
                    "add {a0}, {step}",
                    "add {a1}, {step}",
                    "add {b0}, 1024",
                    "add {b1}, 1024",
                    "dec {blocks}",
                    "jnz 2b",
                    "3:",
                    $($store,)*
                    a0 = inout(reg) $a0 => _,
                    a1 = inout(reg) $a1 => _,
                    b0 = inout(reg) $b0 => _,
                    b1 = inout(reg) $b1 => _,
                    blocks = inout(reg) blocks => _,
                    sums = in(reg) &raw mut sums.0,
                    row = in(reg) 64usize,
                    stride = in(reg) rows.stride,
                    step = in(reg) rows.step,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

type Tiles = *const u32;

/// Stamps the four functions of one instruction that multiplies tiles.
macro_rules! stamp_instruction {
    ($product:literal, $sum:ty, $name_2x2:ident, $name_2x1:ident, $name_1x2:ident, $name_1x1:ident) => {
        stamp!(
            $name_2x2, $sum, [Tiles; 2], [Tiles; 2], (a0, a1, b0, b1): ([a0, a1], [b0, b1]) = |a, b| (a, b),
            clear ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
            step [
                "tileloadd tmm4, [{a0} + {stride}]",
                "tileloadd tmm6, [{b0} + {row}]",
                "tileloadd tmm7, [{b1} + {row}]",
                concat!($product, " tmm0, tmm4, tmm6"),
                "tileloadd tmm5, [{a1} + {stride}]",
                concat!($product, " tmm1, tmm4, tmm7"),
                concat!($product, " tmm2, tmm5, tmm6"),
                concat!($product, " tmm3, tmm5, tmm7")
            ],
            store [
                "tilestored [{sums} + {row}], tmm0"
                "tilestored [{sums} + {row} + 1024], tmm1"
                "tilestored [{sums} + {row} + 2048], tmm2"
                "tilestored [{sums} + {row} + 3072], tmm3"
            ]
        );
        stamp!(
            $name_2x1, $sum, [Tiles; 2], Tiles, (a0, a1, b0, b1): ([a0, a1], b0, b1) = |a, b| (a, b, b),
            clear ["tilezero tmm0" "tilezero tmm2"],
            step [
                "tileloadd tmm4, [{a0} + {stride}]",
                "tileloadd tmm6, [{b0} + {row}]",
                "tileloadd tmm5, [{a1} + {stride}]",
                concat!($product, " tmm0, tmm4, tmm6"),
                concat!($product, " tmm2, tmm5, tmm6")
            ],
            store ["tilestored [{sums} + {row}], tmm0" "tilestored [{sums} + {row} + 2048], tmm2"]
        );
        stamp!(
            $name_1x2, $sum, Tiles, [Tiles; 2], (a0, a1, b0, b1): (a0, a1, [b0, b1]) = |a, b| (a, a, b),
            clear ["tilezero tmm0" "tilezero tmm1"],
            step [
                "tileloadd tmm4, [{a0} + {stride}]",
                "tileloadd tmm6, [{b0} + {row}]",
                "tileloadd tmm7, [{b1} + {row}]",
                concat!($product, " tmm0, tmm4, tmm6"),
                concat!($product, " tmm1, tmm4, tmm7")
            ],
            store ["tilestored [{sums} + {row}], tmm0" "tilestored [{sums} + {row} + 1024], tmm1"]
        );
        stamp!(
            $name_1x1, $sum, Tiles, Tiles, (a0, a1, b0, b1): (a0, a1, b0, b1) = |a, b| (a, a, b, b),
            clear ["tilezero tmm0"],
            step [
                "tileloadd tmm4, [{a0} + {stride}]",
                "tileloadd tmm6, [{b0} + {row}]",
                concat!($product, " tmm0, tmm4, tmm6")
            ],
            store ["tilestored [{sums} + {row}], tmm0"]
        );
    };
}

stamp_instruction!("tdpbf16ps", f32, sums_2x2, sums_2x1, sums_1x2, sums_1x1);
stamp_instruction!("tdpbssd", i32, integers_2x2, integers_2x1, integers_1x2, integers_1x1);

/// Stamps what counts an instruction's products of tiles: four a round, and nothing else.
macro_rules! stamp_peak {
    ($name:ident, $product:literal, $numbers:literal) => {
        /// Multiplications and additions of all rounds.
        ///
        /// # Safety
        /// [`is_available`].
        pub(crate) unsafe fn $name(rounds: u64) -> u64 {
            // SAFETY: the caller promises the instructions; tiles that were not loaded hold zeros.
            unsafe {
                configure();
                asm!(
                    "test {rounds}, {rounds}",
                    "jz 3f",
                    "2:",
                    concat!($product, " tmm0, tmm4, tmm6"),
                    concat!($product, " tmm1, tmm4, tmm7"),
                    concat!($product, " tmm2, tmm5, tmm6"),
                    concat!($product, " tmm3, tmm5, tmm7"),
                    "dec {rounds}",
                    "jnz 2b",
                    "3:",
                    rounds = inout(reg) rounds => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, nomem),
                );
                release();
            }
            const COLUMNS: u64 = 16;
            rounds * 4 * 2 * ROWS as u64 * COLUMNS * $numbers
        }
    };
}

stamp_peak!(multiply_adds, "tdpbf16ps", 32);
stamp_peak!(integer_multiply_adds, "tdpbssd", 64);
