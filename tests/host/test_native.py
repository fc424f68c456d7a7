"""The native layer as Python sees it: what it finds, how it fails, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kata_node_agent.errors import HostError
from kata_node_agent.host import native
from kata_node_agent.host.native import Step

if TYPE_CHECKING:
    from collections.abc import Callable

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUID and these call numbers are of x86_64")


def open_descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# ---- without a host: how raw results become facts ----


class FakeLib:
    """Answers as the C code would, with what a test wants it to have found."""

    KNA_CAPABILITIES = native._lib.KNA_CAPABILITIES
    KNA_CPUID_MAX_LEAVES = native._lib.KNA_CPUID_MAX_LEAVES
    kna_capability_name = native._lib.kna_capability_name
    kna_exit_name = native._lib.kna_exit_name

    def __init__(self, **found: Any) -> None:
        self.error = found.get("error", 0)
        self.found = found

    def kna_cpuid(self, _leaf: int, _subleaf: int, _result: object) -> int:
        return int(self.error)

    def kna_cpuid_read(self, _cpu: int, _leaves: object, _count: object) -> int:
        return int(self.error)

    def kna_kvm_probe(self, _path: bytes, _guest: int, _budget: int, raw: Any) -> int:
        raw.api_version = raw.exit_reason = raw.guest_nanoseconds = -1
        for name, value in self.found.items():
            setattr(raw, name, value)
        return int(self.error)


def find(monkeypatch: pytest.MonkeyPatch, **found: Any) -> native.KvmProbe:
    monkeypatch.setattr(native, "_lib", FakeLib(**found))
    return native.probe_kvm()


def test_wrong_value_is_reported_with_what_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = find(
        monkeypatch,
        step=list(Step).index(Step.VALUE),
        error=errno.EBADMSG,
        api_version=12,
        exit_reason=5,
        guest_nanoseconds=1_999,
        value=1,
        expected=2,
        has_value=1,
        guest_supported=1,
    )
    assert (probe.step, probe.value, probe.expected, probe.microseconds) == (Step.VALUE, 1, 2, 1)
    assert probe.exit_reason_name == "KVM_EXIT_HLT"
    assert probe.error == "Bad message (EBADMSG)"
    assert not probe.ok


def test_what_is_not_known_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = find(monkeypatch, step=0, error=errno.EBUSY, value=7, expected=7)
    assert probe.step is Step.OPEN
    assert (probe.api_version, probe.exit_reason, probe.value, probe.expected, probe.microseconds) == (
        None,
    ) * 5
    assert probe.exit_reason_name == ""
    assert probe.capabilities == {}


def test_capability_that_kvm_would_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [0] * FakeLib.KNA_CAPABILITIES
    answers[0] = -errno.EPERM
    probe = find(monkeypatch, step=3, error=errno.EPERM, api_version=12, capabilities=answers)
    assert len(probe.capabilities) == len(answers) - 1
    assert set(probe.capabilities.values()) == {0}


def test_unnamed_exit_reason_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = find(monkeypatch, step=8, error=errno.EIO, exit_reason=999, guest_nanoseconds=0)
    assert (probe.exit_reason, probe.exit_reason_name, probe.microseconds) == (999, "", 0)


def test_architecture_without_guest_is_run_not_attempted(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = find(monkeypatch, step=list(Step).index(Step.RUN), error=errno.ENOSYS, api_version=12)
    assert (probe.step, probe.errno, probe.guest_supported, probe.ok) == (
        Step.RUN,
        errno.ENOSYS,
        False,
        False,
    )


def test_processor_without_cpuid_is_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_lib", FakeLib(error=errno.ENOSYS))
    with pytest.raises(native.CpuidUnavailableError):
        native.cpuid(0)
    with pytest.raises(native.CpuidUnavailableError):
        native.read_cpuid(0)


@pytest.mark.parametrize("timeout_seconds", [0, -1, 61, float("nan"), float("inf")])
def test_timeout_that_makes_no_sense_is_refused(timeout_seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout_seconds"):
        native.probe_kvm(timeout_seconds=timeout_seconds)


def test_path_with_a_nul_is_refused_and_not_cut_short() -> None:
    with pytest.raises(ValueError, match="NUL"):
        native.probe_kvm("/dev/kvm\0x")


@pytest.mark.parametrize("cpu", [-1, 1 << 31, 1 << 80])
def test_number_that_no_cpu_can_have_is_refused(cpu: int) -> None:
    with pytest.raises(ValueError, match="CPU"):
        native.read_cpuid(cpu)


def test_module_serves_every_python() -> None:
    assert str(native._module.__file__).endswith("_native.abi3.so")


@pytest.mark.host
def test_steps_are_those_of_the_c_code() -> None:
    named = [native._text(native._lib.kna_step_name(index)) for index in range(len(Step) + 1)]
    assert named == [*Step, ""]


# ---- CPUID ----


@x86
@pytest.mark.host
def test_vendor_and_flags_are_those_of_cpuinfo() -> None:
    leaves = native.read_cpuid(min(os.sched_getaffinity(0)))
    _, ebx, ecx, edx = leaves[0, 0]
    vendor = b"".join(register.to_bytes(4, "little") for register in (ebx, edx, ecx)).decode()
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    cpuinfo = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert cpuinfo["vendor_id"] == vendor
    flags = cpuinfo["flags"].split()
    assert bool(leaves[1, 0][2] >> 19 & 1) == ("sse4_1" in flags)
    assert bool(leaves[1, 0][2] >> 31 & 1) == ("hypervisor" in flags)


@x86
@pytest.mark.host
def test_no_leaf_is_read_beyond_the_maximum() -> None:
    leaves = native.read_cpuid()
    highest, highest_extended = leaves[0, 0][0], leaves[0x80000000, 0][0]
    assert all(leaf <= highest for leaf, _ in leaves if leaf < 0x40000000)
    assert all(leaf <= highest_extended for leaf, _ in leaves if leaf >= 0x80000000)
    hypervisor = bool(leaves[1, 0][2] >> 31 & 1)
    assert hypervisor == ((0x40000000, 0) in leaves)
    assert ((7, 1) in leaves) == (highest >= 7 and leaves[7, 0][0] >= 1)


@x86
@pytest.mark.host
def test_one_leaf_is_as_in_the_batch() -> None:
    assert native.cpuid(0) == native.read_cpuid()[0, 0]
    assert native.cpuid(0x80000000) == native.read_cpuid()[0x80000000, 0]


@x86
@pytest.mark.host
def test_each_cpu_is_read_on_that_cpu() -> None:
    # The highest byte of EBX of leaf 1 is the number of the CPU's interrupt controller.
    def bound(cpu: int) -> int:
        os.sched_setaffinity(0, {cpu})
        return native.cpuid(1)[1] >> 24

    for cpu in sorted(os.sched_getaffinity(0)):
        with ThreadPoolExecutor(1) as pool:
            assert native.read_cpuid(cpu)[1, 0][1] >> 24 == pool.submit(bound, cpu).result()


@x86
@pytest.mark.host
def test_affinity_mask_is_restored_after_reading_another_cpu() -> None:
    before = os.sched_getaffinity(0)
    for cpu in before:
        native.read_cpuid(cpu)
        assert os.sched_getaffinity(0) == before


@x86
@pytest.mark.host
def test_affinity_of_a_thread_that_was_bound_is_restored_and_others_are_left_alone() -> None:
    every = os.sched_getaffinity(0)
    if len(every) < 2:
        pytest.skip("one CPU")
    first, second = sorted(every)[:2]
    seen: list[set[int]] = []

    def bound() -> None:
        os.sched_setaffinity(0, {first})
        native.read_cpuid(second)
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=bound)
    thread.start()
    thread.join()
    assert seen == [{first}]
    assert os.sched_getaffinity(0) == every


@x86
@pytest.mark.host
@pytest.mark.parametrize("cpu", [8191, 8192, (1 << 31) - 1])
def test_cpu_that_is_not_there_is_an_error_and_moves_nothing(cpu: int) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(HostError, match="EINVAL") as caught:
        native.read_cpuid(cpu)
    assert caught.value.reason == "CpuUnreachable"
    assert caught.value.hint
    assert os.sched_getaffinity(0) == before


# ---- KVM: what is no KVM ----


@pytest.mark.host
def test_missing_device_is_open_enoent(tmp_path: Path) -> None:
    probe = native.probe_kvm(str(tmp_path / "kvm"))
    assert (probe.step, probe.errno) == (Step.OPEN, errno.ENOENT)
    assert probe.error == "No such file or directory (ENOENT)"


@pytest.mark.host
def test_device_that_is_a_regular_file_is_device_enodev(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    probe = native.probe_kvm(str(tmp_path / "kvm"))
    assert (probe.step, probe.errno) == (Step.DEVICE, errno.ENODEV)


@pytest.mark.host
def test_device_that_is_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "kvm")
    probe = native.probe_kvm(str(tmp_path / "kvm"))
    assert (probe.step, probe.errno) == (Step.DEVICE, errno.ENODEV)


@pytest.mark.host
def test_device_that_is_a_folder_is_open_eisdir(tmp_path: Path) -> None:
    assert (native.probe_kvm(str(tmp_path)).step, native.probe_kvm(str(tmp_path)).errno) == (
        Step.OPEN,
        errno.EISDIR,
    )


@pytest.mark.host
def test_another_character_device_is_api_version_enotty() -> None:
    probe = native.probe_kvm("/dev/null")
    assert (probe.step, probe.errno, probe.api_version) == (Step.API_VERSION, errno.ENOTTY, None)


@pytest.mark.host
def test_path_of_any_length_is_a_failure_to_open() -> None:
    assert native.probe_kvm("/" + "x" * 100_000).errno == errno.ENAMETOOLONG
    assert native.probe_kvm("").errno == errno.ENOENT


# ---- KVM: the guest ----


@pytest.mark.kvm
def test_guest_computes_what_it_should() -> None:
    probe = native.probe_kvm()
    assert probe.ok, probe
    assert probe.errno == 0
    assert probe.error == ""
    assert probe.api_version == 12
    assert probe.value == probe.expected
    assert probe.exit_reason_name
    assert probe.microseconds is not None
    assert probe.capabilities["user-memory"] == 1


@x86
@pytest.mark.kvm
def test_guest_ends_with_hlt_and_within_two_milliseconds() -> None:
    probes = [native.probe_kvm() for _ in range(10)]
    assert {(probe.exit_reason, probe.exit_reason_name) for probe in probes} == {(5, "KVM_EXIT_HLT")}
    assert min(probe.microseconds or 0 for probe in probes) <= 2000


@pytest.mark.kvm
def test_guest_computes_something_else_each_time() -> None:
    assert len({native.probe_kvm().value for _ in range(20)}) == 20


@pytest.mark.kvm
def test_guest_that_loops_for_ever_ends_as_failure_within_a_second() -> None:
    start = time.monotonic()
    probe = native._probe("/dev/kvm", 0.5, native._GUEST_LOOP)
    elapsed = time.monotonic() - start
    assert (probe.step, probe.errno, probe.value) == (Step.RUN, errno.ETIMEDOUT, None)
    assert probe.exit_reason_name == "KVM_EXIT_INTR"
    assert 0.5 <= elapsed < 1
    assert probe.microseconds is not None
    assert 500_000 <= probe.microseconds < 1_000_000


@pytest.mark.kvm
def test_guest_that_exits_for_ever_ends_as_failure_within_a_second() -> None:
    start = time.monotonic()
    probe = native._probe("/dev/kvm", 0.5, native._GUEST_EXITS)
    assert (probe.step, probe.errno, probe.value) == (Step.RUN, errno.ETIMEDOUT, None)
    assert 0.5 <= time.monotonic() - start < 1


@pytest.mark.kvm
def test_others_work_while_a_guest_loops() -> None:
    ticks = 0
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(native._probe, "/dev/kvm", 0.3, native._GUEST_LOOP)
        while not probing.done():
            time.sleep(0.005)
            ticks += 1
    assert ticks > 10


@pytest.mark.kvm
def test_probes_at_the_same_time_do_not_end_each_other() -> None:
    with ThreadPoolExecutor(4) as pool:
        loops = [pool.submit(native._probe, "/dev/kvm", 0.3, native._GUEST_LOOP) for _ in range(2)]
        probes = [pool.submit(native.probe_kvm) for _ in range(40)]
    assert all(probe.result().ok for probe in probes)
    assert all((loop.result().microseconds or 0) >= 300_000 for loop in loops)


@pytest.mark.kvm
def test_signals_are_handled_while_probing_and_disturb_nothing() -> None:
    handled: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, _: handled.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        probes = [native.probe_kvm() for _ in range(50)]
        loop = native._probe("/dev/kvm", 0.1, native._GUEST_LOOP)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert all(probe.ok for probe in probes)
    assert (loop.microseconds or 0) >= 100_000
    assert handled


@pytest.mark.kvm
@pytest.mark.parametrize("guest", [native._GUEST_COMPUTE, native._GUEST_LOOP, native._GUEST_EXITS])
def test_signal_mask_and_handlers_are_as_before(guest: int) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    native._probe("/dev/kvm", 0.05, guest)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    assert signal.sigpending() == set()
    assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers


@pytest.mark.kvm
def test_signal_that_is_pending_already_does_not_keep_the_guest_from_running() -> None:
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMAX])
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGRTMAX)
        assert native.probe_kvm().ok
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@pytest.mark.kvm
def test_descriptors_are_not_inherited() -> None:
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(native._probe, "/dev/kvm", 0.5, native._GUEST_LOOP)
        time.sleep(0.1)
        inherited = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False
        )
        assert not probing.done()
    assert "kvm" not in inherited.stdout


# ---- nothing leaks ----


def end_of_guest(guest: int) -> Callable[[], object]:
    return lambda: native._probe("/dev/kvm", 0.001, guest)


def fail_to_read_cpu() -> None:
    with pytest.raises(HostError):
        native.read_cpuid(8191)


def watch_and_close() -> None:
    os.close(native.watch_folder("/"))


def fail_to_watch() -> None:
    with pytest.raises(FileNotFoundError):
        native.watch_folder("/nonexistent")


def assert_nothing_leaks(call: Callable[[], object], count: int) -> None:
    for _ in range(count // 4):
        call()
    descriptors, before = open_descriptors(), resident_bytes()
    for _ in range(count):
        call()
    assert open_descriptors() == descriptors
    # A leak of one page or structure a call would be megabytes; the allocator's own breath is less.
    assert resident_bytes() - before < 512 * 1024


@x86
@pytest.mark.host
@pytest.mark.parametrize(
    "call",
    [lambda: native.cpuid(0), native.read_cpuid, lambda: native.read_cpuid(0), fail_to_read_cpu],
    ids=["cpuid", "read-here", "read-there", "read-nowhere"],
)
def test_cpuid_leaks_nothing(call: Callable[[], object]) -> None:
    assert_nothing_leaks(call, 4000)


@pytest.mark.host
@pytest.mark.parametrize("path", ["/nonexistent", "/", "/dev/null", "/etc/hostname", ""])
def test_probe_of_what_is_no_kvm_leaks_nothing(path: str) -> None:
    assert_nothing_leaks(lambda: native.probe_kvm(path), 4000)


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("call", "count"),
    [
        (native.probe_kvm, 1000),
        (end_of_guest(native._GUEST_LOOP), 300),
        (end_of_guest(native._GUEST_EXITS), 300),
    ],
    ids=["compute", "loop", "exits"],
)
def test_probe_leaks_nothing(call: Callable[[], object], count: int) -> None:
    assert_nothing_leaks(call, count)


@pytest.mark.host
@pytest.mark.parametrize("call", [watch_and_close, fail_to_watch])
def test_watch_folder_leaks_nothing(call: Callable[[], object]) -> None:
    assert_nothing_leaks(call, 4000)


@pytest.mark.host
def test_watched_folder_tells_of_a_new_file(tmp_path: Path) -> None:
    descriptor = native.watch_folder(str(tmp_path))
    try:
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 4096)
        (tmp_path / "kubelet.sock").touch()
        assert b"kubelet.sock" in os.read(descriptor, 4096)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.host
def test_watching_what_is_no_folder_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        native.watch_folder(str(tmp_path / "file"))


# ---- calls that the kernel refuses ----

# Runs in a process of its own, as a seccomp filter stays for good: refuses one system call with an errno (if
# `second` is not None, only with that second argument), then probes three times.
CONFINED = textwrap.dedent("""
    import ctypes, json, os, signal, struct, sys
    from kata_node_agent.errors import HostError
    from kata_node_agent.host import native

    number, second, error, cpuid = json.loads(sys.argv[1])
    refuse = 0x00050000 | error
    program = [(0x20, 0, 0, 0), (0x15, 0, 3 if second is not None else 1, number)]  # another call: allow
    if second is not None:
        program += [(0x20, 0, 0, 24), (0x15, 0, 1, second)]
    program += [(0x06, 0, 0, refuse), (0x06, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    argument = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)

    def descriptors():
        found = []
        for number in range(64):
            try:
                os.fstat(number)
                found.append(number)
            except OSError:
                pass
        return found

    before = descriptors()
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, argument, 0, 0) == 0, os.strerror(ctypes.get_errno())
    found = []
    for _ in range(3):
        if cpuid:
            try:
                native.read_cpuid(0)
                found.append(["read", 0])
            except HostError as problem:
                found.append([problem.reason, problem.message])
        else:
            probe = native.probe_kvm(timeout_seconds=0.2)
            found.append([str(probe.step), probe.errno])
    mask = len(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    print(json.dumps([found, descriptors() == before, mask]))
""")


def confined(number: int, second: int | None, error: int, *, cpuid: bool = False) -> list[Any]:
    child = subprocess.run(
        [sys.executable, "-c", CONFINED, json.dumps([number, second, error, cpuid])],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert child.returncode == 0, child.stderr
    found, closed, masked = json.loads(child.stdout)
    assert closed
    assert masked == 0
    assert found[0] == found[1] == found[2]
    return list(found[0])


SYS_IOCTL, SYS_MMAP, SYS_RT_SIGTIMEDWAIT, SYS_SETAFFINITY, SYS_GETAFFINITY = 16, 9, 128, 203, 204
SYS_TIMER_CREATE, SYS_TIMER_SETTIME, SYS_OPENAT = 222, 223, 257


@x86
@pytest.mark.kvm
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_filter_that_forbids_ioctl_is_a_failed_step(error: int) -> None:
    assert confined(SYS_IOCTL, None, error) == [Step.API_VERSION, error]


@x86
@pytest.mark.host
@pytest.mark.parametrize("error", [errno.EACCES, errno.EBUSY, errno.ENODEV, errno.ENXIO])
def test_open_keeps_its_errno(error: int) -> None:
    assert confined(SYS_OPENAT, None, error) == [Step.OPEN, error]


# As <linux/kvm.h> numbers them on x86_64.
IOCTLS = {
    "KVM_GET_API_VERSION": (0xAE00, Step.API_VERSION),
    "KVM_CREATE_VM": (0xAE01, Step.CREATE_VM),
    "KVM_SET_USER_MEMORY_REGION": (0x4020AE46, Step.MEMORY),
    "KVM_SET_TSS_ADDR": (0xAE47, Step.MEMORY),
    "KVM_CREATE_VCPU": (0xAE41, Step.CREATE_VCPU),
    "KVM_GET_VCPU_MMAP_SIZE": (0xAE04, Step.MMAP),
    "KVM_GET_SREGS": (0x8138AE83, Step.REGISTERS),
    "KVM_SET_SREGS": (0x4138AE84, Step.REGISTERS),
    "KVM_SET_REGS": (0x4090AE82, Step.REGISTERS),
    "KVM_SET_SIGNAL_MASK": (0x4004AE8B, Step.RUN),
    "KVM_RUN": (0xAE80, Step.RUN),
}


@x86
@pytest.mark.kvm
@pytest.mark.parametrize("name", IOCTLS)
def test_each_step_fails_as_itself_and_cleans_up(name: str) -> None:
    number, step = IOCTLS[name]
    assert confined(SYS_IOCTL, number, errno.EBUSY) == [step, errno.EBUSY]


@x86
@pytest.mark.kvm
def test_capabilities_that_may_not_be_asked_do_not_fail_the_probe() -> None:
    assert confined(SYS_IOCTL, 0xAE03, errno.EPERM) == [Step.DONE, 0]


@x86
@pytest.mark.kvm
def test_endless_interruptions_end() -> None:
    assert confined(SYS_IOCTL, 0xAE01, errno.EINTR) == [Step.CREATE_VM, errno.EINTR]
    assert confined(SYS_IOCTL, 0xAE80, errno.EINTR) == [Step.RUN, errno.ETIMEDOUT]


@x86
@pytest.mark.kvm
@pytest.mark.parametrize("number", [SYS_TIMER_CREATE, SYS_TIMER_SETTIME, SYS_RT_SIGTIMEDWAIT])
def test_without_a_timer_no_guest_is_run(number: int) -> None:
    assert confined(number, None, errno.EPERM) == [Step.RUN, errno.EPERM]


@x86
@pytest.mark.host
@pytest.mark.parametrize("number", [SYS_GETAFFINITY, SYS_SETAFFINITY])
def test_cpu_that_we_may_not_move_to_is_said_so(number: int) -> None:
    reason, message = confined(number, None, errno.EPERM, cpuid=True)
    assert reason == "CpuUnreachable"
    assert message == "CPUID of CPU 0: Operation not permitted (EPERM)"


LIMITED = textwrap.dedent("""
    import os, resource
    from kata_node_agent.host import native

    free = os.dup(0)
    os.close(free)
    assert native.probe_kvm().ok
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for more in range(4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, hard))
        probe = native.probe_kvm()
        print(probe.step, probe.errno)
""")


@pytest.mark.kvm
def test_too_few_descriptors_are_a_failed_step() -> None:
    child = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=30)
    assert child.stdout.splitlines() == ["open 24", "create-vm 24", "create-vcpu 24", "done 0"], child.stderr


@pytest.mark.host
def test_device_that_may_not_be_opened_is_open_eacces(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os
        from kata_node_agent.host import native

        os.getuid() or os.setuid(65534)
        probe = native.probe_kvm({str(tmp_path / "kvm")!r})
        print(probe.step, probe.errno)
    """)
    (tmp_path / "kvm").touch(mode=0o000)
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert child.stdout.split() == ["open", str(errno.EACCES)], child.stderr
