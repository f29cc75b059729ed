//! The threads of one context.
//!
//! Problem: without a pool of its own, a context starts its threads anew for every token, and ggml's
//! default pool spins while it waits. Promise: as many threads as asked for (the caller's is one of
//! them), asleep between steps, at the priority of the thread that makes the pool. Cost: none for one
//! thread. The functions are looked up by name, because it is decided at run time which build of ggml's
//! CPU part runs ([`super::backend`]).

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

type Start = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
type Stop = unsafe extern "C" fn(*mut sys::ggml_threadpool);

pub(super) struct Threads {
    pub(super) pool: NonNull<sys::ggml_threadpool>,
    stop: Stop,
}

impl Threads {
    pub(super) fn start(count: i32) -> Result<Self, String> {
        // SAFETY: the names are null-terminated; what is looked up has the types that ggml-cpu.h
        // declares for these names; the parameters live through the call.
        unsafe {
            let registry = sys::ggml_backend_reg_by_name(c"CPU".as_ptr());
            if registry.is_null() {
                return Err("ggml has no CPU backend".to_owned());
            }
            let start = sys::ggml_backend_reg_get_proc_address(registry, c"ggml_threadpool_new".as_ptr());
            let stop = sys::ggml_backend_reg_get_proc_address(registry, c"ggml_threadpool_free".as_ptr());
            if start.is_null() || stop.is_null() {
                return Err("ggml's CPU backend has no thread pool".to_owned());
            }
            let start = std::mem::transmute::<*mut std::ffi::c_void, Start>(start);
            let stop = std::mem::transmute::<*mut std::ffi::c_void, Stop>(stop);
            let mut params = sys::ggml_threadpool_params_default(count);
            // Asleep between steps: a spinning thread is a core that validation does not get.
            params.poll = 0;
            params.prio = sys::GGML_SCHED_PRIO_NORMAL;
            let pool = start(&raw mut params);
            let pool = NonNull::new(pool).ok_or("ggml cannot start its threads")?;
            Ok(Self { pool, stop })
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: made by the matching function; the context that used it is freed first.
        unsafe { (self.stop)(self.pool.as_ptr()) };
    }
}
