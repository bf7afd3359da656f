"""Programs on cgroups."""

from __future__ import annotations

from dataclasses import replace

from pytest_bpf.kinds.attach_types import AttachType as At
from pytest_bpf.kinds.program_kind import ORDER, ProgramKind

_CGROUP_OPTIONS = ("mode", "replace", "preorder", *ORDER)


_CGROUP = ProgramKind(
    "",
    "",
    target="a cgroup",
    way="cgroup",
    options=_CGROUP_OPTIONS,
    passes=1,
    unseen=True,
    probe="cgroup",
)

ROWS = (
    replace(
        _CGROUP,
        name="cgroup_skb",
        type="cgroup_skb",
        sections={
            "cgroup_skb/ingress": At.CGROUP_INET_INGRESS,
            "cgroup_skb/egress": At.CGROUP_INET_EGRESS,
            "cgroup/skb": 0,
        },
        options=("direction", *_CGROUP_OPTIONS),
        context="__sk_buff",
        test_run="packet",
        since=(4, 10),
    ),
    replace(
        _CGROUP,
        name="cgroup_sock",
        type="cgroup_sock",
        sections={
            "cgroup/sock": At.CGROUP_INET_SOCK_CREATE,
            "cgroup/sock_create": At.CGROUP_INET_SOCK_CREATE,
            "cgroup/sock_release": At.CGROUP_INET_SOCK_RELEASE,
            "cgroup/post_bind4": At.CGROUP_INET4_POST_BIND,
            "cgroup/post_bind6": At.CGROUP_INET6_POST_BIND,
        },
        context="bpf_sock",
        since=(4, 10),
    ),
    replace(
        _CGROUP,
        name="cgroup_sock_addr",
        type="cgroup_sock_addr",
        sections={
            "cgroup/bind4": At.CGROUP_INET4_BIND,
            "cgroup/bind6": At.CGROUP_INET6_BIND,
            "cgroup/connect4": At.CGROUP_INET4_CONNECT,
            "cgroup/connect6": At.CGROUP_INET6_CONNECT,
            "cgroup/connect_unix": At.CGROUP_UNIX_CONNECT,
            "cgroup/sendmsg4": At.CGROUP_UDP4_SENDMSG,
            "cgroup/sendmsg6": At.CGROUP_UDP6_SENDMSG,
            "cgroup/sendmsg_unix": At.CGROUP_UNIX_SENDMSG,
            "cgroup/recvmsg4": At.CGROUP_UDP4_RECVMSG,
            "cgroup/recvmsg6": At.CGROUP_UDP6_RECVMSG,
            "cgroup/recvmsg_unix": At.CGROUP_UNIX_RECVMSG,
            "cgroup/getpeername4": At.CGROUP_INET4_GETPEERNAME,
            "cgroup/getpeername6": At.CGROUP_INET6_GETPEERNAME,
            "cgroup/getpeername_unix": At.CGROUP_UNIX_GETPEERNAME,
            "cgroup/getsockname4": At.CGROUP_INET4_GETSOCKNAME,
            "cgroup/getsockname6": At.CGROUP_INET6_GETSOCKNAME,
            "cgroup/getsockname_unix": At.CGROUP_UNIX_GETSOCKNAME,
        },
        context="bpf_sock_addr",
        since=(4, 17),
    ),
    replace(
        _CGROUP,
        name="cgroup_device",
        type="cgroup_device",
        sections={"cgroup/dev": At.CGROUP_DEVICE},
        context="bpf_cgroup_dev_ctx",
        since=(4, 15),
    ),
    replace(
        _CGROUP,
        name="cgroup_sysctl",
        type="cgroup_sysctl",
        sections={"cgroup/sysctl": At.CGROUP_SYSCTL},
        context="bpf_sysctl",
        since=(5, 2),
    ),
    replace(
        _CGROUP,
        name="cgroup_sockopt",
        type="cgroup_sockopt",
        sections={
            "cgroup/getsockopt": At.CGROUP_GETSOCKOPT,
            "cgroup/setsockopt": At.CGROUP_SETSOCKOPT,
        },
        context="bpf_sockopt",
        since=(5, 3),
    ),
    replace(
        _CGROUP,
        name="sockops",
        type="sock_ops",
        sections={"sockops": At.CGROUP_SOCK_OPS},
        context="bpf_sock_ops",
        since=(4, 13),
        probe="",
    ),
    replace(
        _CGROUP,
        name="lsm_cgroup",
        type="lsm",
        sections={"lsm_cgroup": At.LSM_CGROUP},
        since=(6, 0),
        unseen=False,
        probe="lsm",
    ),
)
