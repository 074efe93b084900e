/* Lets user-mode-linux 6.1 run on processors with more extended state than it knows, such as those with AMX.
 *
 * It reads the extended state of a process into a buffer of fixed size, which the host truncates. When it writes the state
 * back, the host accepts only the complete state: EFAULT, and the kernel panics. Preloaded, this wrapper reads the complete state,
 * replaces the part that user-mode-linux knows, and writes the whole.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

long ptrace(enum __ptrace_request request, ...)
{
    static long (*real)(enum __ptrace_request, pid_t, void *, void *);
    /* Never used concurrently: the kernel is one process and does not switch within a call. */
    static unsigned char whole[1 << 16];
    va_list rest;
    va_start(rest, request);
    pid_t process = va_arg(rest, pid_t);
    void *address = va_arg(rest, void *), *data = va_arg(rest, void *);
    va_end(rest);
    if (!real)
        real = dlsym(RTLD_NEXT, "ptrace");
    if (request == PTRACE_SETREGSET && (unsigned long)address == NT_X86_XSTATE) {
        struct iovec *known = data, all = {whole, sizeof whole};
        if (real(PTRACE_GETREGSET, process, address, &all) == 0 && known->iov_len < all.iov_len) {
            memcpy(whole, known->iov_base, known->iov_len);
            return real(request, process, address, &all);
        }
    }
    return real(request, process, address, data);
}
