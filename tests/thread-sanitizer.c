// Tells ThreadSanitizer what the standard library's locks do where they wait: the library comes
// without the sanitizer, and only what is fast is compiled into those who use it. The linker puts
// the functions here in the place of the library's, whose names sanitizers.sh defines.

#include <stdbool.h>
#include <stdint.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

void REAL_LOCK(void *mutex);
void REAL_WAIT(void *condvar, void *mutex);
bool REAL_WAIT_TIMEOUT(void *condvar, void *mutex, uint64_t seconds, uint32_t nanoseconds);

void WRAP_LOCK(void *mutex) {
    REAL_LOCK(mutex);
    __tsan_acquire(mutex);
}

void WRAP_WAIT(void *condvar, void *mutex) {
    __tsan_release(mutex);
    REAL_WAIT(condvar, mutex);
    __tsan_acquire(mutex);
}

bool WRAP_WAIT_TIMEOUT(void *condvar, void *mutex, uint64_t seconds, uint32_t nanoseconds) {
    __tsan_release(mutex);
    bool notified = REAL_WAIT_TIMEOUT(condvar, mutex, seconds, nanoseconds);
    __tsan_acquire(mutex);
    return notified;
}
