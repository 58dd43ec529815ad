# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The hot work on bytes, compiled: plain request heads, environs, response heads.

Every function has a twin in :mod:`bide.twins` that does the same, and :mod:`bide.native` chooses.
Each takes what is plain and certain, and returns None (or false) for all else, which Python then
decides. So nothing is accepted here that the strict way would refuse, or understand otherwise.

Invariants:

- No byte beyond the end of the data is read.
- No code of Python's runs, but for allocation: what is looked at cannot change meanwhile.
- The table of names never drops an entry, so a borrowed one stays good. It is guarded by the
  interpreter's lock, which is why builds without it use the twin.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem, PyDict_SetItem, PyDict_Size
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_GetSlice
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport (
    PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
)
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from bide.twins import encode as encode_in_python

cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030C0000
    #define bide_ready(text) (PyUnicode_READY(text) == 0)
    #else
    #define bide_ready(text) 1
    #endif
    """
    bint bide_ready(object text)

cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object text)
    bint PyUnicode_IS_ASCII(object text)
    int PyUnicode_KIND(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 most)
    object PyUnicode_DecodeLatin1(const char* data, Py_ssize_t size, const char* errors)
    void PyUnicode_InternInPlace(PyObject** text)


# Bytes ------------------------------------------------------------------------------------------

cdef enum:
    PATH = 1    # may stand in a path: pchar and / (RFC 3986 section 3.3), % too
    QUERY = 2   # may stand in a query
    HOST = 4    # may stand in a plain host: no brackets, no %

cdef uint8_t classes[256]
cdef uint8_t cgi[256]
"""What a byte of a header's name becomes in CGI; 0 for _ and for what no name has."""


cdef int _mark(bytes among, int kind) except -1:
    cdef uint8_t each
    for each in among:
        classes[each] |= kind
    return 0


cdef int _make_bytes() except -1:
    cdef uint8_t each
    cdef bytes alphanumeric = (
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    )
    _mark(alphanumeric + b"-._~!$&'()*+,;=:@/%", PATH | QUERY)
    _mark(b"?", QUERY)
    _mark(alphanumeric + b"-._~", HOST)
    for each in alphanumeric + b"!#$%&'*+.^`|~":
        cgi[each] = each - 32 if 97 <= each <= 122 else each
    cgi[45] = 95  # - becomes _
    return 0


_make_bytes()


# Names ------------------------------------------------------------------------------------------

cdef enum:
    PLAIN = 0
    IS_HOST = 1
    IS_LENGTH = 2
    IS_CONNECTION = 3
    ODD = 4      # the strict way decides

cdef enum:
    SLOTS = 2048
    MOST_NAMES = 1024
    MOST_PROBES = 8
    LONGEST = 64     # of a name that is taken
    MOST_LINES = 64  # headers of a head that is taken

cdef struct Entry:
    PyObject* key      # owned, never dropped
    const char* text   # the name in it, without HTTP_
    Py_ssize_t size
    uint32_t hash
    int kind

cdef Entry table[SLOTS]
cdef int names = 0


cdef inline Entry* _find(uint32_t hash, const uint8_t* name, Py_ssize_t size) noexcept:
    """Return the entry of a name, as CGI writes it; NULL if there is none."""
    cdef Entry* entry
    cdef uint32_t probe
    for probe in range(<uint32_t>MOST_PROBES):
        entry = &table[(hash + probe) & (SLOTS - 1)]
        if entry.key == NULL:
            return NULL
        if entry.hash == hash and entry.size == size and memcmp(entry.text, name, size) == 0:
            return entry
    return NULL


cdef object _key_of(uint32_t hash, const uint8_t* name, Py_ssize_t size, int kind):
    """Return the key of a name, as CGI writes it, and keep it if there is a free place for it."""
    global names
    cdef Entry* entry = _find(hash, name, size)
    cdef PyObject* interned
    cdef uint32_t probe
    if entry != NULL:
        return <object>entry.key
    cdef bytes text = PyBytes_FromStringAndSize(<const char*>name, size)
    cdef bint bare = text == b"CONTENT_TYPE" or text == b"CONTENT_LENGTH"
    cdef object key = (text if bare else b"HTTP_" + text).decode("ascii")
    if names >= MOST_NAMES:
        return key
    for probe in range(<uint32_t>MOST_PROBES):
        entry = &table[(hash + probe) & (SLOTS - 1)]
        if entry.key == NULL:
            Py_INCREF(key)
            interned = <PyObject*>key
            PyUnicode_InternInPlace(&interned)  # the very object of a literal: found by identity
            key = <object>interned
            entry.key = interned
            entry.text = <const char*>PyUnicode_DATA(key) + (0 if bare else 5)
            entry.size = size
            entry.hash = hash
            entry.kind = kind
            names += 1
            break
    return key


cdef inline uint32_t _hashed(uint32_t hash, uint8_t byte) noexcept:
    return (hash ^ byte) * 16777619u  # FNV-1a


cdef int _seed(list spelled, int kind) except -1:
    cdef bytes name
    cdef uint8_t each
    cdef uint32_t hash
    for name in spelled:
        name = bytes([cgi[each] for each in name])
        hash = 2166136261u
        for each in name:
            hash = _hashed(hash, each)
        _key_of(hash, name, len(name), kind)
        if _find(hash, name, len(name)) == NULL:
            raise ImportError(f"the table of names has no place for {name!r}")
    return 0


# First those that mean something: they must be there, whatever else comes.
_seed([b"host"], IS_HOST)
_seed([b"content-length"], IS_LENGTH)
_seed([b"connection"], IS_CONNECTION)
_seed([b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection", b"proxy"], ODD)
# And what clients send, so that a flood of others leaves it a place.
_seed([
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"authorization",
    b"cache-control", b"content-encoding", b"content-language", b"content-type", b"cookie",
    b"date", b"dnt", b"forwarded", b"from", b"if-match", b"if-modified-since", b"if-none-match",
    b"if-range", b"if-unmodified-since", b"origin", b"pragma", b"priority", b"range", b"referer",
    b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform", b"sec-fetch-dest",
    b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user", b"sec-gpc", b"te", b"traceparent",
    b"tracestate", b"upgrade-insecure-requests", b"user-agent", b"via", b"x-csrftoken",
    b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto",
    b"x-real-ip", b"x-request-id", b"x-requested-with",
], PLAIN)


def kept():
    """Return how many names the table keeps, and how many it may."""
    return names, MOST_NAMES


# A request's head -------------------------------------------------------------------------------

cdef struct Line:
    const Entry* entry  # NULL: no name that the table has
    const uint8_t* name
    Py_ssize_t name_size
    const uint8_t* value
    Py_ssize_t value_size

cdef enum:
    ANY = 1 << 30  # bytes or headers: a bound that is none here

cdef object limits_seen = None
cdef Py_ssize_t most_line = 0
cdef Py_ssize_t most_head = 0
cdef Py_ssize_t most_lines = 0
cdef uint64_t most_body = 0


cdef int _see(limits) except -1:
    """Take the numbers of some limits, once for all heads that have the same ones."""
    global limits_seen, most_line, most_head, most_lines, most_body
    limits_seen = None
    most_line = min(limits.request_line, ANY)
    most_head = min(limits.head, ANY)
    most_lines = min(limits.fields, MOST_LINES)
    most_body = min(limits.body, 10**18) if limits.body > 0 else 10**18
    limits_seen = limits
    return 0


cdef inline const uint8_t* _skip_visible(const uint8_t* at, const uint8_t* end) noexcept:
    """Return the first byte that is neither visible ASCII nor a blank; or the end."""
    cdef uint64_t block, odd
    while end - at >= 8:
        memcpy(&block, at, 8)
        # In each byte the highest bit: it was set, or the byte is below 0x20, or is 0x7f.
        odd = block | (block - 0x2020202020202020u) | (block + 0x0101010101010101u)
        if odd & 0x8080808080808080u:
            break
        at += 8
    while at < end and 0x20 <= at[0] < 0x7F:
        at += 1
    return at


cdef inline bint _same(const uint8_t* text, Py_ssize_t size, const char* lower) noexcept:
    """Whether a text is this one of letters and dashes, in any case."""
    cdef Py_ssize_t index
    for index in range(size):
        if (text[index] | 0x20) != <uint8_t>lower[index] and text[index] != <uint8_t>lower[index]:
            return False
    return True


cdef inline bint _good_host(const uint8_t* at, Py_ssize_t size) noexcept:
    """Whether this is a name or an IPv4 address, and a port if there is a colon."""
    cdef const uint8_t* end = at + size
    cdef const uint8_t* start = at
    while at < end and classes[at[0]] & HOST:
        at += 1
    if at == start:
        return False
    if at == end:
        return True
    if at[0] != 58:  # :
        return False
    at += 1
    if not 1 <= end - at <= 5:
        return False
    while at < end:
        if not 48 <= at[0] <= 57:
            return False
        at += 1
    return True


cdef inline object _method(const uint8_t* at, Py_ssize_t size, Py_ssize_t* after):
    """Return the method that stands here with its blank, and how long both are; or None."""
    if size >= 8:
        if memcmp(at, b"GET ", 4) == 0:
            after[0] = 4
            return "GET"
        if memcmp(at, b"POST ", 5) == 0:
            after[0] = 5
            return "POST"
        if memcmp(at, b"HEAD ", 5) == 0:
            after[0] = 5
            return "HEAD"
        if memcmp(at, b"PUT ", 4) == 0:
            after[0] = 4
            return "PUT"
        if memcmp(at, b"PATCH ", 6) == 0:
            after[0] = 6
            return "PATCH"
        if memcmp(at, b"DELETE ", 7) == 0:
            after[0] = 7
            return "DELETE"
        if memcmp(at, b"OPTIONS ", 8) == 0:
            after[0] = 8
            return "OPTIONS"
    return None


def parse(data, Py_ssize_t at, limits):
    """Parse a request's head that is plain and certain, and complete; return None for any other.

    Return where it ends, and of its request: the method, the target, the path as sent, whether
    that has a percent sign, the query, the version, whether the connection persists, the length
    of the body, and CGI's keys and texts of its headers, one behind the other.
    """
    cdef const uint8_t* start
    cdef const uint8_t* end
    cdef Py_ssize_t size
    cdef const uint8_t* here
    cdef const uint8_t* target
    cdef const uint8_t* path_end
    cdef const uint8_t* target_end
    cdef Py_ssize_t after = 0
    cdef bint escaped = False, persistent, old, hosted = False, counted = False, connected = False
    cdef bint kept_alive = False
    cdef uint64_t length = 0
    cdef Line lines[MOST_LINES]
    cdef Line* line
    cdef const Entry* entry
    cdef Py_ssize_t count = 0, index
    cdef uint8_t name[LONGEST]
    cdef uint8_t* name_end
    cdef const uint8_t* longest
    cdef uint8_t byte
    cdef uint32_t hash

    if type(data) is not bytes:
        return None
    start = <const uint8_t*>PyBytes_AS_STRING(data)
    size = PyBytes_GET_SIZE(data)
    if limits is not limits_seen:
        _see(limits)
    if at < 0 or at >= size:
        return None
    start += at
    end = start + min(size - at, most_head)

    # The request line
    method = _method(start, end - start, &after)
    if method is None:
        return None
    target = here = start + after
    if here >= end or here[0] != 47:  # /
        return None
    while here < end and classes[here[0]] & PATH:
        if here[0] == 37:  # %
            escaped = True
        here += 1
    path_end = here
    if here < end and here[0] == 63:  # ?
        here += 1
        while here < end and classes[here[0]] & QUERY:
            here += 1
    target_end = here
    if end - here < 11 or memcmp(here, b" HTTP/1.", 8) or memcmp(here + 9, b"\r\n", 2):
        return None
    if here[8] != 49 and here[8] != 48:
        return None
    old = here[8] == 48
    here += 9
    if here - start > most_line:
        return None
    here += 2

    # The headers
    while True:
        if here >= end:
            return None
        if here[0] == 13:  # the empty line
            if end - here < 2 or here[1] != 10:
                return None
            here += 2
            break
        if count == most_lines:
            return None
        line = &lines[count]
        count += 1
        line.name = here
        hash = 2166136261u
        name_end = name
        longest = here + LONGEST if end - here > LONGEST else end
        while here < longest:
            byte = cgi[here[0]]
            if byte == 0:
                break
            name_end[0] = byte
            name_end += 1
            hash = _hashed(hash, byte)
            here += 1
        index = name_end - name
        # A value of at least a byte, and the line's end behind it: : x CR LF
        if index == 0 or end - here < 5 or here[0] != 58 or here[1] != 32:
            return None
        here += 2
        line.name_size = index
        line.value = here
        here = _skip_visible(here, end)
        line.value_size = here - line.value
        if end - here < 2 or here[0] != 13 or here[1] != 10:
            return None
        if line.value_size == 0 or line.value[0] == 32 or (here - 1)[0] == 32:
            return None
        here += 2
        entry = line.entry = _find(hash, name, index)
        if entry == NULL or entry.kind == PLAIN:
            continue
        if entry.kind == IS_HOST:
            if hosted or not _good_host(line.value, line.value_size):
                return None
            hosted = True
        elif entry.kind == IS_CONNECTION:
            if connected:
                return None
            connected = True
            if line.value_size == 10 and _same(line.value, 10, b"keep-alive"):
                kept_alive = True
            elif line.value_size != 5 or not _same(line.value, 5, b"close"):
                return None
        elif entry.kind == IS_LENGTH:
            if counted or line.value_size > 18:
                return None
            counted = True
            for index in range(line.value_size):
                if not 48 <= line.value[index] <= 57:
                    return None
                length = length * 10 + (line.value[index] - 48)
            if (line.value[0] == 48 and line.value_size > 1) or length > most_body:
                return None
        else:
            return None
    if not (hosted or old):
        return None
    persistent = kept_alive if old else (kept_alive or not connected)

    # All is well: only now are objects made.
    cdef object raw = PyBytes_FromStringAndSize(<const char*>target, target_end - target)
    cdef object path = raw
    cdef object query = b""
    if path_end != target_end:
        path = PyBytes_FromStringAndSize(<const char*>target, path_end - target)
        query = PyBytes_FromStringAndSize(<const char*>path_end + 1, target_end - path_end - 1)
    cdef tuple fields = PyTuple_New(2 * count)
    cdef object key, text
    cdef Py_ssize_t at_line
    for at_line in range(count):
        line = &lines[at_line]
        if line.entry != NULL:
            key = <object>line.entry.key
        else:
            hash = 2166136261u
            for index in range(line.name_size):
                name[index] = cgi[line.name[index]]
                hash = _hashed(hash, name[index])
            key = _key_of(hash, name, line.name_size, PLAIN)
        text = PyUnicode_New(line.value_size, 127)
        memcpy(PyUnicode_DATA(text), line.value, line.value_size)
        Py_INCREF(key)
        PyTuple_SET_ITEM(fields, 2 * at_line, key)
        Py_INCREF(text)
        PyTuple_SET_ITEM(fields, 2 * at_line + 1, text)
    return (
        at + (here - start), method, raw, path, escaped, query, "1.0" if old else "1.1",
        persistent, length, fields,
    )


# An environ -------------------------------------------------------------------------------------

cdef inline object _latin(bytes data):
    return PyUnicode_DecodeLatin1(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), NULL)


def fill(
    dict environ not None, str method, bytes root not None, bytes path not None,
    bytes query not None, bytes target not None, str version, tuple fields not None,
):
    """Add to an environ the keys of a request that ``parse`` took; return whether none came twice.

    If one was, the environ is of no use: which of them has come is not known.
    """
    cdef object uri = _latin(target)
    cdef Py_ssize_t index, size
    PyDict_SetItem(environ, "REQUEST_METHOD", method)
    if PyBytes_GET_SIZE(root):
        PyDict_SetItem(environ, "SCRIPT_NAME", _latin(root))
    PyDict_SetItem(environ, "PATH_INFO", uri if path is target else _latin(path))
    PyDict_SetItem(environ, "QUERY_STRING", _latin(query))
    PyDict_SetItem(environ, "RAW_URI", uri)
    PyDict_SetItem(environ, "REQUEST_URI", uri)
    PyDict_SetItem(environ, "SERVER_PROTOCOL", "HTTP/1.0" if version == "1.0" else "HTTP/1.1")
    size = PyDict_Size(environ)
    for index in range(0, PyTuple_GET_SIZE(fields), 2):
        PyDict_SetItem(
            environ, <object>PyTuple_GET_ITEM(fields, index),
            <object>PyTuple_GET_ITEM(fields, index + 1),
        )
    return PyDict_Size(environ) == size + PyTuple_GET_SIZE(fields) // 2


# A response's head ------------------------------------------------------------------------------

def check(headers, dict kinds not None):
    """Check a response's headers; return None where Python has to decide, or to tell what is wrong.

    Return a list of their pairs, Content-Length or None, and whether Date and Server are there.

    Args:
        headers: the application's headers.
        kinds: header names that have been checked; what they need, or "".
    """
    cdef Py_ssize_t index, at, size
    cdef const uint8_t* text
    cdef PyObject* kind
    cdef uint64_t number
    cdef object length = None
    cdef bint dated = False, served = False
    cdef object pair, name, value
    if type(headers) is not list:
        return None
    for index in range(PyList_GET_SIZE(headers)):
        pair = <object>PyList_GET_ITEM(headers, index)
        if not PyTuple_CheckExact(pair) or PyTuple_GET_SIZE(pair) != 2:
            return None
        name = <object>PyTuple_GET_ITEM(pair, 0)
        value = <object>PyTuple_GET_ITEM(pair, 1)
        if not PyUnicode_CheckExact(name) or not PyUnicode_CheckExact(value):
            return None
        if not bide_ready(value) or not PyUnicode_IS_ASCII(value):
            return None
        text = <const uint8_t*>PyUnicode_DATA(value)
        size = PyUnicode_GET_LENGTH(value)
        if _skip_visible(text, text + size) != text + size:
            return None
        kind = PyDict_GetItem(kinds, name)
        if kind == NULL:
            return None
        if PyUnicode_GET_LENGTH(<object>kind) == 0:
            continue
        if <object>kind == "content-length":
            if length is not None or not 1 <= size <= 18:
                return None
            number = 0
            for at in range(size):
                if not 48 <= text[at] <= 57:
                    return None
                number = number * 10 + (text[at] - 48)
            length = number
        elif <object>kind == "date":
            dated = True
        elif <object>kind == "server":
            served = True
        else:
            return None
    return PyList_GetSlice(headers, 0, PyList_GET_SIZE(headers)), length, dated, served


cdef inline char* _put(char* at, const void* data, Py_ssize_t size) noexcept:
    memcpy(at, data, size)
    return at + size


def encode(
    int code, str reason not None, list headers not None, bytes stamp not None,
    bytes framing not None, bytes end not None,
):
    """Encode a response's head that has been checked: its status line, headers, and three parts.

    What is not a pair of Latin-1 texts is left to Python, which raises what is wrong.
    """
    cdef Py_ssize_t index, size
    cdef object pair, name, value
    if not 100 <= code <= 999 or not bide_ready(reason) or PyUnicode_KIND(reason) != 1:
        return encode_in_python(code, reason, headers, stamp, framing, end)
    size = 15 + PyUnicode_GET_LENGTH(reason)
    size += PyBytes_GET_SIZE(stamp) + PyBytes_GET_SIZE(framing) + PyBytes_GET_SIZE(end)
    for index in range(PyList_GET_SIZE(headers)):
        pair = <object>PyList_GET_ITEM(headers, index)
        if not PyTuple_CheckExact(pair) or PyTuple_GET_SIZE(pair) != 2:
            return encode_in_python(code, reason, headers, stamp, framing, end)
        name = <object>PyTuple_GET_ITEM(pair, 0)
        value = <object>PyTuple_GET_ITEM(pair, 1)
        if not isinstance(name, str) or not isinstance(value, str):
            return encode_in_python(code, reason, headers, stamp, framing, end)
        if not bide_ready(name) or not bide_ready(value):
            return encode_in_python(code, reason, headers, stamp, framing, end)
        if PyUnicode_KIND(name) != 1 or PyUnicode_KIND(value) != 1:
            return encode_in_python(code, reason, headers, stamp, framing, end)
        size += PyUnicode_GET_LENGTH(name) + PyUnicode_GET_LENGTH(value) + 4
    cdef bytes head = PyBytes_FromStringAndSize(NULL, size)
    cdef char* at = PyBytes_AS_STRING(head)
    at = _put(at, b"HTTP/1.1 ", 9)
    at[0] = 48 + code // 100
    at[1] = 48 + code // 10 % 10
    at[2] = 48 + code % 10
    at[3] = 32
    at = _put(at + 4, PyUnicode_DATA(reason), PyUnicode_GET_LENGTH(reason))
    at = _put(at, b"\r\n", 2)
    for index in range(PyList_GET_SIZE(headers)):
        pair = <object>PyList_GET_ITEM(headers, index)
        name = <object>PyTuple_GET_ITEM(pair, 0)
        value = <object>PyTuple_GET_ITEM(pair, 1)
        at = _put(at, PyUnicode_DATA(name), PyUnicode_GET_LENGTH(name))
        at = _put(at, b": ", 2)
        at = _put(at, PyUnicode_DATA(value), PyUnicode_GET_LENGTH(value))
        at = _put(at, b"\r\n", 2)
    at = _put(at, PyBytes_AS_STRING(stamp), PyBytes_GET_SIZE(stamp))
    at = _put(at, PyBytes_AS_STRING(framing), PyBytes_GET_SIZE(framing))
    _put(at, PyBytes_AS_STRING(end), PyBytes_GET_SIZE(end))
    return head
