//! When freed memory goes back to the system.

/// Bytes from which on a buffer is the system's again as soon as it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: i32 = 128 << 10;

/// Makes the allocator return large buffers as soon as they are freed, for processes that live long.
///
/// glibc begins so, at 128 KiB, but after the first buffers it keeps ever larger ones for itself: images and residual streams
/// that one thread allocates and another frees then leave holes, and a server grows. Other allocators are left as they are.
pub fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// malloc.h.
        const M_MMAP_THRESHOLD: i32 = -3;
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        // SAFETY: glibc's own function, with its own parameter; it changes where later buffers come from, and no buffer.
        let _ = unsafe { mallopt(M_MMAP_THRESHOLD, LARGE) };
    }
}
