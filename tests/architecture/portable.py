"""Finds what only Linux or POSIX can do in a source file, and what each system does in its own way."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

POSIX_MODULES = {
    "fcntl",
    "resource",
    "pwd",
    "grp",
    "termios",
    "tty",
    "pty",
    "posix",
    "syslog",
    "crypt",
    "spwd",
}
# What Windows or macOS has not, of modules that they have.
POSIX_NAMES = {
    "os": {
        *("fork", "forkpty", "fork_exec", "register_at_fork", "wait", "waitid", "waitpid", "wait3", "wait4"),
        *("kill", "killpg", "getpgid", "setpgid", "setsid", "getsid", "nice", "getpriority", "setpriority"),
        *("getuid", "geteuid", "getgid", "getegid", "getgroups", "initgroups", "setuid", "setgid", "chown"),
        *("sched_getaffinity", "sched_setaffinity", "sched_yield", "pidfd_open", "memfd_create", "eventfd"),
        *("uname", "sysconf", "confstr", "getloadavg", "statvfs", "fstatvfs", "sync", "fdatasync", "mkfifo"),
        *("mknod", "symlink", "readlink", "link", "openpty", "sendfile", "posix_fadvise", "posix_fallocate"),
        *("O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECT", "O_SYNC", "O_DIRECTORY", "O_TMPFILE", "pread"),
        *("preadv", "pwrite", "lockf", "ttyname", "ctermid", "pipe2", "chroot"),
    },
    "signal": {
        *("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGCHLD", "SIGSTOP", "SIGCONT"),
        *("SIGPIPE", "SIGTSTP", "pthread_sigmask", "pthread_kill", "setitimer", "alarm", "pause", "sigwait"),
        *("sigpending", "siginterrupt", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK"),
    },
    "socket": {"AF_UNIX", "socketpair", "send_fds", "recv_fds", "SCM_RIGHTS"},
    "select": {"poll", "epoll", "kqueue"},
    "time": {"clock_gettime", "pthread_getcpuclockid", "tzset"},
}
PROCESS_KEYWORDS = {"preexec_fn", "start_new_session", "pass_fds", "process_group"}
LINUX_PLACES = ("/proc/", "/sys/", "/dev/", "/tmp", "/etc/", "/var/")
PATH_METHODS = {"symlink_to", "hardlink_to", "owner", "group", "readlink", "lchmod"}
TEXT_METHODS = {"read_text", "write_text"}


class Finding(NamedTuple):
    """Something in a file that other systems do not have, or do otherwise."""

    line: int
    name: str
    why: str


def findings(text: str) -> list[Finding]:
    """All of a source file, in the order of its lines."""
    return sorted(finding for node in ast.walk(ast.parse(text)) for finding in _of(node))


def _of(node: ast.AST) -> Iterator[Finding]:
    match node:
        case ast.Import(names=names):
            yield from _of_modules(node.lineno, [alias.name for alias in names])
        case ast.ImportFrom(module=str(module), names=names):
            yield from _of_modules(node.lineno, [module])
            for name in {alias.name for alias in names} & POSIX_NAMES.get(module, set()):
                yield Finding(node.lineno, f"{module}.{name}", "not on every system")
        case ast.Attribute(value=ast.Name(id=module), attr=name) if name in POSIX_NAMES.get(module, ()):
            yield Finding(node.lineno, f"{module}.{name}", "not on every system")
        case ast.Constant(value=str(value)) if value.startswith(LINUX_PLACES):
            yield Finding(node.lineno, value, "a place that only Linux has")
        case ast.Call():
            yield from _of_call(node)


def _of_modules(line: int, names: list[str]) -> Iterator[Finding]:
    for name in names:
        if name.split(".")[0] in POSIX_MODULES:
            yield Finding(line, name, "no such module on Windows")


def _of_call(call: ast.Call) -> Iterator[Finding]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    for keyword in sorted(PROCESS_KEYWORDS & {str(key) for key in keywords}):
        yield Finding(call.lineno, keyword, "of processes: only POSIX")
    if name in PATH_METHODS and isinstance(call.func, ast.Attribute):
        yield Finding(call.lineno, name, "links and owners are not on every file system")
    if name == "get_context":
        kind = call.args[0] if call.args else None
        if not isinstance(kind, ast.Constant) or kind.value != "spawn":
            yield Finding(call.lineno, name, "only spawn is there everywhere")
    if None in keywords or "encoding" in keywords:
        return
    is_method = isinstance(call.func, ast.Attribute)
    if (
        is_method
        and name in TEXT_METHODS
        or (name in ("open", "fdopen") and _opens_text(call))
        or name == "TextIOWrapper"
    ):
        yield Finding(call.lineno, name, "text without encoding: Windows takes cp1252")
    if any(isinstance(keywords.get(key), ast.Constant) for key in ("text", "universal_newlines")):
        yield Finding(call.lineno, name, "text of a process without encoding: Windows takes cp1252")


def _opens_text(call: ast.Call) -> bool:
    """Whether a call of something named `open` opens a file as text; modes with a b, r:gz and r| do not."""
    is_function = isinstance(call.func, ast.Name) or getattr(call.func, "attr", "") == "fdopen"
    if not is_function and isinstance(call.func, ast.Attribute):
        owner = call.func.value
        if isinstance(owner, ast.Name) and owner.id in ("Image", "tarfile", "os", "webbrowser", "zipfile"):
            return False
    place = 1 if is_function else 0
    mode = next((k.value for k in call.keywords if k.arg == "mode"), None)
    if mode is None and len(call.args) > place:
        mode = call.args[place]
    if mode is None:
        return is_function or not call.args
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and not set("b:|") & set(mode.value)
