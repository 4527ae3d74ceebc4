"""What every adapter keeps: of two tenants in one process, neither learns anything of the other's."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimem.bank import Bank

TENANTS = ("ann", "bob")

_CHECKS = (HealthCheck.function_scoped_fixture, HealthCheck.differing_executors)  # it is inherited, and cleans its bank


class TenantsContract(ABC):
    """Needs a fixture ``bank``."""

    @abstractmethod
    def write(self, bank: Bank, tenant: str, text: str) -> None:
        """Remember a text for a tenant through the adapter."""

    @abstractmethod
    def read(self, bank: Bank, tenant: str, query: str) -> str:
        """Return all that the adapter makes of a query of a tenant."""

    @settings(max_examples=6, deadline=None, suppress_health_check=_CHECKS)
    @given(st.lists(st.tuples(st.sampled_from(TENANTS), st.integers(0, 3)), min_size=1, max_size=5))
    def test_nothing_crosses_from_tenant_to_tenant(self, bank: Bank, said: list[tuple[str, int]]) -> None:
        for tenant in TENANTS:
            bank.forget(namespace=tenant)
        for tenant, number in said:
            self.write(bank, tenant, f"The code of the safe is {tenant}-{number}.")
        for tenant, other in (TENANTS, TENANTS[::-1]):
            found = self.read(bank, tenant, "What is the code of the safe?")
            assert f"{other}-" not in found
            assert not any(who == tenant for who, _ in said) or f"{tenant}-" in found
