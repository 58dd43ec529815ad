"""The server's locks, in the compiled form: they count for each thread how many it holds.

Compiled functions have no frames, by which ``waiting/locks.py`` finds in the pure form what holds a
lock. Its twin is :class:`threading.RLock`.

And a first look at the frames that a wait is called from, which makes no frame objects.
"""

from cpython.pythread cimport (
    NOWAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_get_thread_ident,
    PyThread_release_lock,
    PyThread_type_lock,
    WAIT_LOCK,
)

cdef extern from *:
    """
    static __thread long bide_locks_held = 0;

    /* Python says nothing of frames without making an object of each. So their structure is read;
       it is known for these versions. */
    #if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED)
    #ifndef Py_BUILD_CORE
    #define Py_BUILD_CORE 1
    #endif
    #include "internal/pycore_frame.h"

    static int bide_are_plain(PyObject *marks, PyObject *ends)
    {
        PyThreadState *thread = PyThreadState_Get();
    #if PY_VERSION_HEX >= 0x030D0000
        struct _PyInterpreterFrame *frame = thread->current_frame;
    #else
        struct _PyInterpreterFrame *frame = thread->cframe->current_frame;
    #endif
        Py_ssize_t count = PyList_GET_SIZE(ends), at;
        for (; frame != NULL; frame = frame->previous) {
    #if PY_VERSION_HEX >= 0x030D0000
            PyObject *running = frame->f_executable;
            if (running == NULL || !PyCode_Check(running))
                continue;
            PyCodeObject *code = (PyCodeObject *)running;
    #else
            PyCodeObject *code = frame->f_code;
    #endif
            for (at = 0; at < count; at++) {
                if (PyList_GET_ITEM(ends, at) == (PyObject *)code)
                    return 1;
            }
            if (code->co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR))
                return 0;
            at = PyDict_Contains(marks, code->co_qualname);
            if (at)
                return at < 0 ? -1 : 0;
        }
        return 1;
    }
    #else
    static int bide_are_plain(PyObject *marks, PyObject *ends)
    {
        return 0;
    }
    #endif
    """
    long bide_locks_held
    int bide_are_plain(object marks, object ends) except -1


def held() -> int:
    """Return how many locks of the server the calling thread holds."""
    return bide_locks_held


def is_plain(marks: dict, ends: list) -> bool:
    """Whether no lock and no frame of this greenlet can stand in the way of a wait.

    Not so where the thread holds a lock of the server, or a frame runs a coroutine or a function
    whose qualified name is in ``marks``. Then the frames themselves must be looked at.

    Args:
        marks: a dictionary by qualified names.
        ends: the code of functions below which no frame is looked at.
    """
    return not bide_locks_held and bide_are_plain(marks, ends) == 1


cdef class Lock:
    """A re-entrant lock for ``with``, as ``threading.RLock``; any thread may use it.

    A thread that waits for it is not interrupted by signals: it is held for microseconds.
    """

    cdef PyThread_type_lock _lock
    cdef unsigned long _owner
    cdef long _depth  # read and written by the owner alone

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._lock is not NULL:
            PyThread_free_lock(self._lock)

    def __enter__(self):
        global bide_locks_held
        cdef unsigned long me = PyThread_get_thread_ident()
        if self._owner == me:
            self._depth += 1
        else:
            if not PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
                with nogil:
                    PyThread_acquire_lock(self._lock, WAIT_LOCK)
            self._owner = me
            self._depth = 1
        bide_locks_held += 1
        return True

    def __exit__(self, kind, error, traceback):
        global bide_locks_held
        if self._owner != PyThread_get_thread_ident():
            raise RuntimeError("cannot release a lock that this thread does not hold")
        bide_locks_held -= 1
        self._depth -= 1
        if not self._depth:
            self._owner = 0
            PyThread_release_lock(self._lock)
