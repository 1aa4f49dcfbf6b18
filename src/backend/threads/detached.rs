//! Detached threads with a stack of a given size, and the signal that interrupts their calls.

use crate::error::{check, named};
use crate::process::{change_mask, signal_set};
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Sent to one thread to make its blocking call return EINTR. If nothing waits for it, it does
/// nothing: it is ignored by default. Urgent data sends it only to the owner of a socket, and no
/// socket here has one (F_SETOWN).
const INTERRUPTION: libc::c_int = libc::SIGURG;

/// Lets [`interrupt`] break off blocking calls, in all threads that the calling one starts from now
/// on: a handler that does nothing, without SA_RESTART, for a signal that may have been blocked
/// when this process was started.
pub fn allow_interruptions() -> io::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: an all-zero sigaction is a valid value of that plain structure, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the kernel reads `action`, whose handler takes one argument as its flags of 0 say,
    // and which touches nothing, so that it may run at any moment.
    check(unsafe { libc::sigaction(INTERRUPTION, &action, ptr::null_mut()) })
        .map_err(named("sigaction"))?;
    change_mask(libc::SIG_UNBLOCK, &signal_set(&[INTERRUPTION])?)
}

/// Starts a detached thread with a stack of `stack_bytes`, guard page and the C library's own part
/// included.
///
/// `std::thread` is for threads of which there are few: it gives each a second stack for signals,
/// so that half as many fit into the mappings that a process may have (vm.max_map_count), and where
/// that one cannot be mapped it ends the process instead of returning the error.
///
/// # Errors
/// EAGAIN when threads, memory or mappings ran out; EINVAL for a stack that is too small
/// (pthread_create(3)). Then `body` is dropped.
pub fn spawn<F: FnOnce() + Send + 'static>(
    name: &'static CStr,
    stack_bytes: usize,
    body: F,
) -> io::Result<()> {
    extern "C" fn run<F: FnOnce()>(task: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: this is the pointer that spawn has made of a Box of this type, and has
        // given up.
        let (name, body) = *unsafe { Box::from_raw(task.cast::<(&'static CStr, F)>()) };
        // SAFETY: the name ends with a zero. One that is too long is an error, and the thread has
        // none.
        unsafe { libc::pthread_setname_np(libc::pthread_self(), name.as_ptr()) };
        // A panic cannot leave this function: it ends the process, with its message.
        body();
        ptr::null_mut()
    }
    let failed_with = |error: libc::c_int| match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: it sets up the attributes, which are destroyed below and not moved until then.
    failed_with(unsafe { libc::pthread_attr_init(attributes) })?;
    let task = Box::into_raw(Box::new((name, body)));
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are set up. `run` takes what `task` points to, which may go to another
    // thread and borrows nothing; it takes it once, because one thread at most is made.
    let result = unsafe {
        failed_with(libc::pthread_attr_setstacksize(attributes, stack_bytes))
            .and_then(|()| {
                failed_with(libc::pthread_attr_setdetachstate(
                    attributes,
                    libc::PTHREAD_CREATE_DETACHED,
                ))
            })
            .and_then(|()| {
                failed_with(libc::pthread_create(
                    thread.as_mut_ptr(),
                    attributes,
                    run::<F>,
                    task.cast(),
                ))
            })
    };
    // SAFETY: they were set up above, and a thread does not need them any more.
    unsafe { libc::pthread_attr_destroy(attributes) };
    if result.is_err() {
        // SAFETY: there is no thread that could take it.
        drop(unsafe { Box::from_raw(task) });
    }
    result
}

/// The kernel's number of the calling thread.
pub fn thread_id() -> libc::pid_t {
    // SAFETY: takes no pointer, and cannot fail.
    unsafe { libc::gettid() }
}

/// Breaks off the blocking call that a thread of this process is in. It does nothing to a thread
/// that is not in one yet, so it must be repeated until it has been heard.
pub fn interrupt(thread: libc::pid_t) {
    // SAFETY: takes no pointer. A thread that has ended is an error that needs no answer.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, INTERRUPTION) };
}
