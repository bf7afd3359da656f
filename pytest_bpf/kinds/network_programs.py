"""Programs on interfaces, network namespaces and sockets."""

from __future__ import annotations

from dataclasses import replace

from pytest_bpf.kinds.attach_types import AttachType as At
from pytest_bpf.kinds.program_kind import ORDER, ProgramKind

_SK_BUFF = ProgramKind("", "", context="__sk_buff", test_run="packet", unseen=True)
_TC = replace(_SK_BUFF, type="sched_cls", target="an interface", passes=-1)
_LWT = replace(_SK_BUFF, target="a route", way="route", options=("netns",))
_SOCKMAP = replace(_SK_BUFF, target="a sockmap", way="sockmap", passes=1, test_run="")

ROWS = (
    # interfaces
    ProgramKind(
        "xdp",
        "xdp",
        {"xdp": At.XDP, "xdp.frags": At.XDP},
        target="an interface",
        way="xdp",
        options=("mode", "replace"),
        context="xdp_md",
        passes=2,
        caller="dispatcher",
        test_run="packet",
        since=(4, 8),
        unseen=True,
    ),
    ProgramKind(
        "xdp_devmap",
        "xdp",
        {"xdp/devmap": At.XDP_DEVMAP, "xdp.frags/devmap": At.XDP_DEVMAP},
        target="an entry of a devmap",
        context="xdp_md",
        passes=2,
        caller="dispatcher",
        since=(5, 8),
        unseen=True,
        probe="xdp",
    ),
    ProgramKind(
        "xdp_cpumap",
        "xdp",
        {"xdp/cpumap": At.XDP_CPUMAP, "xdp.frags/cpumap": At.XDP_CPUMAP},
        target="an entry of a cpumap",
        context="xdp_md",
        passes=2,
        caller="dispatcher",
        since=(5, 9),
        unseen=True,
        probe="xdp",
    ),
    replace(
        _TC,
        name="tc",
        sections=dict.fromkeys(
            (
                *("tc", "tc/ingress", "tc/egress", "tc_ingress", "tc_egress"),
                *("classifier", "classifier/ingress", "classifier/egress"),
            ),
            0,
        ),
        way="tc",
        options=("direction", "mode", "priority", "handle", "chain", *ORDER),
        modes={"clsact": "tc", "tcx": "tcx"},
        since=(4, 1),
    ),
    replace(
        _TC,
        name="tc_action",
        type="sched_act",
        sections={"action": 0},
        target="an action of a tc filter",
        since=(4, 1),
        probe="tc",
    ),
    replace(
        _TC,
        name="tcx",
        sections={"tcx/ingress": At.TCX_INGRESS, "tcx/egress": At.TCX_EGRESS, "tcx": 0},
        way="tcx",
        options=("direction", "mode", "priority", "handle", "chain", *ORDER),
        modes={"clsact": "tc", "tcx": "tcx"},
        since=(6, 6),
    ),
    replace(
        _TC,
        name="netkit",
        sections={"netkit/primary": At.NETKIT_PRIMARY, "netkit/peer": At.NETKIT_PEER},
        target="a netkit interface",
        way="netkit",
        options=ORDER,
        since=(6, 7),
    ),
    replace(_LWT, name="lwt_in", type="lwt_in", sections={"lwt_in": 0}, since=(4, 10)),
    replace(_LWT, name="lwt_out", type="lwt_out", sections={"lwt_out": 0}, since=(4, 10)),
    replace(_LWT, name="lwt_xmit", type="lwt_xmit", sections={"lwt_xmit": 0}, since=(4, 10)),
    replace(
        _LWT,
        name="lwt_seg6local",
        way="",
        options=(),
        type="lwt_seg6local",
        sections={"lwt_seg6local": 0},
        since=(4, 18),
    ),
    # network namespaces
    ProgramKind(
        "netfilter",
        "netfilter",
        {"netfilter": At.NETFILTER},
        target="a network namespace",
        way="netfilter",
        options=("hook", "family", "priority", "defrag"),
        context="bpf_nf_ctx",
        passes=1,
        test_run="packet",
        since=(6, 4),
        unseen=True,
    ),
    ProgramKind(
        "sk_lookup",
        "sk_lookup",
        {"sk_lookup": At.SK_LOOKUP},
        target="a network namespace",
        way="netns",
        context="bpf_sk_lookup",
        passes=1,
        test_run="socket",
        since=(5, 9),
        unseen=True,
    ),
    ProgramKind(
        "flow_dissector",
        "flow_dissector",
        {"flow_dissector": At.FLOW_DISSECTOR},
        target="a network namespace",
        way="netns",
        context="__sk_buff",
        passes=129,
        test_run="packet",
        since=(4, 20),
        unseen=True,
    ),
    # sockets
    replace(
        _SK_BUFF,
        name="socket_filter",
        type="socket_filter",
        sections={"socket": 0},
        target="a socket",
        way="socket",
        passes=-1,
        since=(3, 19),
    ),
    ProgramKind(
        "sk_reuseport",
        "sk_reuseport",
        {
            "sk_reuseport": At.SK_REUSEPORT_SELECT,
            "sk_reuseport/migrate": At.SK_REUSEPORT_SELECT_OR_MIGRATE,
        },
        target="a socket",
        way="socket",
        context="sk_reuseport_md",
        passes=1,
        since=(4, 19),
        unseen=True,
    ),
    replace(
        _SOCKMAP,
        name="sk_skb",
        type="sk_skb",
        sections={
            "sk_skb/stream_parser": At.SK_SKB_STREAM_PARSER,
            "sk_skb/stream_verdict": At.SK_SKB_STREAM_VERDICT,
            "sk_skb/verdict": At.SK_SKB_VERDICT,
            "sk_skb": 0,
        },
        since=(4, 14),
    ),
    replace(
        _SOCKMAP,
        name="sk_msg",
        type="sk_msg",
        sections={"sk_msg": At.SK_MSG_VERDICT},
        context="sk_msg_md",
        since=(4, 17),
    ),
)
