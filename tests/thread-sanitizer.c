// Tells ThreadSanitizer what the standard library's locks do where they wait, and that a scoped thread
// has ended: the library comes without the sanitizer, and only what is fast, or generic, is compiled
// into those who use it. The linker puts the functions here in the place of the library's, whose names
// sanitizers.sh defines.

#include <stdbool.h>
#include <stdint.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

void REAL_LOCK(void *mutex);
void REAL_WAIT(void *condvar, void *mutex);
bool REAL_WAIT_TIMEOUT(void *condvar, void *mutex, uint64_t seconds, uint32_t nanoseconds);
void REAL_END(void *scope, bool panicked);

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

// Who waits for the scope's end reads a count of its threads: one of three words, in an order that is
// the compiler's to choose.
void WRAP_END(void *scope, bool panicked) {
    for (int word = 0; word < 3; word++) {
        __tsan_release((uint64_t *)scope + word);
    }
    REAL_END(scope, panicked);
}
