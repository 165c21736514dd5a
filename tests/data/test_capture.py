import gzip
import io
import struct

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_core.data.capture import Capture
from fl_core.data.packets import Packet
from fl_core.errors import DataError
from tests.data.frames import arp, block, ethernet, ipv4, ipv6, pcap, pcapng, tcp, udp

T = 1_700_000_000_250_000  # microseconds
SYN = ethernet(0x0800, ipv4(6, tcp(40000, 23)))
SECTION = 28  # bytes of a section header


def read(content):
    capture = Capture(io.BytesIO(content), "x.pcap")
    return list(capture), dict(capture.skipped)


def one(frame, **options):
    packets, skipped = read(pcap([(T, frame)], **options))
    assert not skipped
    return packets[0]


def packet(size, **changes):
    base = {
        "time": T / 1e6,
        "size": size,
        "src_mac": "02:00:00:00:00:01",
        "src_ip": "10.0.0.1",
        "dst_ip": "10.0.0.2",
    }
    return Packet(**(base | changes))


IP = {"src_ip": "fe80::1", "dst_ip": "fe80::2"}
FRAMES = {
    "tcp": (SYN, {"src_port": 40000, "dst_port": 23, "protocol": "tcp"}),
    "udp": (
        ethernet(0x0800, ipv4(17, udp(53, 5353, b"hello"))),
        {"src_port": 53, "dst_port": 5353, "protocol": "udp"},
    ),
    "icmp": (ethernet(0x0800, ipv4(1, bytes([8, 0, 0, 0, 0, 1, 0, 1]))), {"protocol": "icmp"}),
    "other ip": (ethernet(0x0800, ipv4(89, b"ospf")), {"protocol": "ip89"}),
    "later fragment": (ethernet(0x0800, ipv4(17, b"x" * 16, fragment=5)), {"protocol": "udp"}),
    "arp": (ethernet(0x0806, arp()), {"protocol": "arp"}),
    "one vlan tag": (
        ethernet(0x0800, ipv4(6, tcp(1, 2)), vlans=(7,)),
        {"src_port": 1, "dst_port": 2},
    ),
    "two vlan tags": (
        ethernet(0x0800, ipv4(6, tcp(1, 2)), vlans=(7, 8)),
        {"src_port": 1, "dst_port": 2},
    ),
    "ipv6 tcp": (
        ethernet(0x86DD, ipv6(6, tcp(443, 50000))),
        {"src_port": 443, "dst_port": 50000, **IP},
    ),
    "ipv6 icmp": (ethernet(0x86DD, ipv6(58, bytes(8))), {"protocol": "icmp", **IP}),
    "ipv6 with a hop-by-hop header": (
        ethernet(0x86DD, ipv6(0, bytes([6, 0, 1, 4, 0, 0, 0, 0]) + tcp(443, 50000))),
        {"src_port": 443, "dst_port": 50000, **IP},
    ),
    "ipv6 encrypted": (ethernet(0x86DD, ipv6(50, bytes(24))), {"protocol": "ip50", **IP}),
    "lldp": (
        ethernet(0x88CC, b"xyz"),
        {
            "src_ip": "02:00:00:00:00:01",
            "dst_ip": "02:00:00:00:00:02",
            "protocol": "0x88cc",
        },
    ),
}


@pytest.mark.req("F-12")
@pytest.mark.parametrize("name", FRAMES)
def test_each_kind_of_frame(name):
    frame, changes = FRAMES[name]
    assert one(frame) == packet(len(frame), **changes)


@pytest.mark.req("F-12")
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nano", [False, True])
def test_byte_orders_and_resolutions(order, nano):
    time = T * 1000 if nano else T
    packets, _ = read(pcap([(time, SYN)], order=order, nano=nano))
    assert packets == [packet(len(SYN), src_port=40000, dst_port=23)]


@pytest.mark.req("F-12")
@pytest.mark.parametrize("order", "<>")
def test_pcapng(order):
    packets, skipped = read(pcapng([(T, SYN), (T + 500_000, SYN)], order=order))
    assert [p.time for p in packets] == [T / 1e6, T / 1e6 + 0.5]
    assert packets[0] == packet(len(SYN), src_port=40000, dst_port=23)
    assert not skipped


@pytest.mark.req("F-12")
def test_pcapng_resolution_offset_sections_and_unknown_blocks():
    resolution = struct.pack("<HHB3x", 9, 1, 9) + struct.pack("<HHq", 14, 8, 100) + bytes(4)
    first = pcapng([(5 * 10**9, SYN)], options=resolution)
    binary = struct.pack("<HHB3x", 9, 1, 0x80 | 10)
    second = pcapng([(1024 * 3, SYN)], order="<", options=binary)
    unknown = block("<", 5, bytes(8))
    packets, skipped = read(first + unknown + second + pcapng([(T, SYN)], order=">"))
    assert [p.time for p in packets] == [105.0, 3.0, T / 1e6]
    assert not skipped


@pytest.mark.req("F-13")
def test_pcapng_blocks_without_a_time_are_counted():
    simple = block("<", 3, struct.pack("<I", len(SYN)) + SYN)
    packets, skipped = read(pcapng([(T, SYN)]) + simple)
    assert len(packets) == 1
    assert skipped == {"no timestamp or an unknown block": 1}


@pytest.mark.req("F-12")
def test_links_without_ethernet():
    inner = ipv4(6, tcp(1, 2))
    raw = one(inner, link_type=101)
    assert (raw.src_mac, raw.src_ip, raw.dst_port) == ("", "10.0.0.1", 2)
    cooked = struct.pack(">HHH8sH", 0, 1, 6, b"\2\0\0\0\0\1\0\0", 0x0800)
    assert one(cooked + inner, link_type=113).src_mac == "02:00:00:00:00:01"
    second = struct.pack(">HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, b"\2\0\0\0\0\1\0\0")
    assert one(second + inner, link_type=276).src_mac == "02:00:00:00:00:01"


@pytest.mark.req("F-03")
def test_size_is_that_on_the_wire_when_the_capture_kept_less():
    long = ethernet(0x0800, ipv4(6, tcp(1, 2, b"x" * 1000)))
    packets, skipped = read(pcap([(T, long[:60], len(long))]))
    assert (packets[0].size, packets[0].dst_port) == (len(long), 2)
    packets, _ = read(pcapng([(T, long[:60], len(long))]))
    assert packets[0].size == len(long)
    assert not skipped


@pytest.mark.req("F-13")
def test_frames_that_make_no_sense_are_counted_by_reason():
    packets, skipped = read(
        pcap(
            [
                (T, SYN),
                (T, b"short"),
                (T, ethernet(0x0800, b"\x45")),
                (T, ethernet(0x0800, b"\x65" + bytes(30))),
                (T, ethernet(0x86DD, b"\x60\0")),
                (T, ethernet(0x0806, b"\0\1")),
                (T, ethernet(0x8100, b"\0\1")),
                (T, SYN),
            ]
        )
    )
    assert len(packets) == 2
    assert skipped == {
        "frame shorter than its header": 2,
        "malformed IPv4": 2,
        "malformed IPv6": 1,
        "malformed ARP": 1,
    }


@pytest.mark.req("F-13")
@pytest.mark.parametrize("make", [pcap, pcapng])
@pytest.mark.parametrize("cut", [1, 20, len(SYN) + 15])
def test_a_capture_cut_off_is_read_to_there(make, cut):
    content = make([(T, SYN), (T, SYN)])
    packets, skipped = read(content[:-cut])
    assert len(packets) == 1
    assert skipped == {"capture cut off": 1}


@pytest.mark.req("F-13")
@pytest.mark.parametrize("left", range(1, len(pcapng([]))))
def test_a_capture_cut_off_in_a_later_section_is_read_to_there(left):
    packets, skipped = read(pcapng([(T, SYN)]) + pcapng([])[:left])
    assert len(packets) == 1
    between = left == SECTION  # two whole blocks are no loss that a file can show
    assert skipped == ({} if between else {"capture cut off": 1})


@pytest.mark.req("F-13")
@pytest.mark.parametrize("left", range(4, SECTION))
def test_a_capture_cut_off_in_its_first_section_header_is_none(left):
    with pytest.raises(DataError, match="cut off inside the file header") as caught:
        read(pcapng([(T, SYN)])[:left])
    assert caught.value.hint


NO_CAPTURES = {
    "empty": (b"", "is empty"),
    "text": (b"time,size\n", "neither pcap nor pcapng"),
    "gzip": (gzip.compress(pcap([])), "compressed by gzip"),
    "header cut off": (pcap([])[:15], "cut off inside the file header"),
    "wifi": (pcap([(T, SYN)], link_type=105), "link type 105 is not known"),
    "huge record": (pcap([]) + struct.pack("<IIII", 1, 2, 1 << 31, 60), "record 1 is damaged"),
    "pcapng order": (b"\x0a\x0d\x0d\x0a" + bytes(20), "damaged pcapng section"),
    "pcapng huge block": (pcapng([]) + struct.pack("<II", 6, 1 << 31), "block 0 is damaged"),
    "pcapng tiny block": (pcapng([]) + struct.pack("<II", 6, 4), "block 0 is damaged"),
    "pcapng no interface": (pcapng([(T, SYN)], interface=3), "block 1 is of interface 3, which"),
    "pcapng short packet": (pcapng([]) + block("<", 6, bytes(12)), "block 1 is damaged"),
    "pcapng later order": (pcapng([]) + b"\x0a\x0d\x0d\x0a" + bytes(20), "damaged pcapng sect"),
    "pcapng false length": (
        pcapng([]) + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 999, 999)),
        "block 1 is damaged",
    ),
    "pcapng short interface": (pcapng([]) + block("<", 1, b"abcd"), "damaged pcapng interface"),
}


@pytest.mark.req("F-13")
@pytest.mark.parametrize("case", NO_CAPTURES)
def test_what_is_no_capture(case):
    content, message = NO_CAPTURES[case]
    with pytest.raises(DataError, match=message) as caught:
        read(content)
    assert str(caught.value).startswith("x.pcap: ")
    assert caught.value.hint


@pytest.mark.req("F-13")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_give_packets_or_a_data_error(data):
    frames = [(T, frame) for frame, _ in FRAMES.values()]
    make = data.draw(st.sampled_from((pcap, pcapng)))
    link_type = data.draw(st.sampled_from((1, 101, 113, 276)))
    content = bytearray(make(frames, link_type=link_type))
    for _ in range(data.draw(st.integers(0, 12))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        packets, _ = read(bytes(content))
    except DataError:
        return
    assert all(isinstance(packet, Packet) for packet in packets)


@pytest.mark.req("F-13")
@settings(max_examples=200, deadline=None)
@given(st.sampled_from((0x0800, 0x86DD, 0x0806, 0x8100)), st.binary(max_size=120))
def test_any_frame_gives_a_packet_or_is_counted(kind, data):
    head = b"\x45" if kind == 0x0800 else b"\x60"
    for content in (data, head + data):
        packets, skipped = read(pcap([(T, ethernet(kind, content))]))
        assert len(packets) + sum(skipped.values()) == 1


def test_what_dpkt_writes_is_read():
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file, nano=True)
    writer.writepkt(SYN, ts=1234.5)
    writer.writepkt(SYN, ts=1235.75)
    file.seek(0)
    assert [p.time for p in Capture(file, "x")] == [1234.5, 1235.75]


def test_packets_come_before_the_end_of_the_stream():
    class Pipe(io.BytesIO):
        def read(self, size=-1):
            assert size >= 0, "reads to the end"
            return super().read(size)

    content = pcap([(T, SYN), (T, SYN)])
    pipe = Pipe(content)
    packets = iter(Capture(pipe, "pipe"))
    next(packets)
    assert pipe.tell() == 24 + 16 + len(SYN)
