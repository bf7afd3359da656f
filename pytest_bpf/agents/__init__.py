"""Whole agents: any command that loads programs, from its start to its end, and what it costs."""

from pytest_bpf.agents.agent import Agent
from pytest_bpf.agents.agents import Agents
from pytest_bpf.agents.cost import AgentCost

__all__ = ["Agent", "AgentCost", "Agents"]
