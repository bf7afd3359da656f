"""Conditions that hold for one packet in 2^40 and fewer, each for ``needles.bpf.c``."""

from __future__ import annotations

NEEDLES = {
    "two constants": "udp->dest == bpf_htons(40007) && ip->ttl == 77",
    "three constants": (
        "ip->protocol == 17 && udp->dest == bpf_htons(40007) && bpf_ntohl(ip->daddr) == 0xc6336417"
    ),
    "read-only data": "udp->dest == bpf_htons(secret) && ip->ttl == 77",
    "a sum": "ip->saddr == ip->daddr + offset && ip->ttl == 77",
    "a sum of two, and a mask": (
        "bpf_ntohs(udp->source) + bpf_ntohs(udp->dest) == 50023 && (ip->tos & 0xfc) == 0xb8 && "
        "udp->check == bpf_htons(0xbeef)"
    ),
}
"""The conditions by what they are made of."""
