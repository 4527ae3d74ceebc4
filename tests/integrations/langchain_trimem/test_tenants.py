"""Nothing crosses from tenant to tenant in retrievers and tools; the other adapters' tests say it of themselves."""

from __future__ import annotations

from langchain_trimem import BankRetriever, memory_tools
from tests.contracts.tenants import TenantsContract
from trimem import Bank


class TestRetriever(TenantsContract):
    def write(self, bank: Bank, tenant: str, text: str) -> None:
        bank.remember(text, namespace=tenant)

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        return str(BankRetriever(bank=bank, namespace=tenant, k=9).invoke(query))


class TestTools(TenantsContract):
    def write(self, bank: Bank, tenant: str, text: str) -> None:
        remember, _, _ = memory_tools(bank, lambda: tenant)
        remember.invoke({"text": text})

    def read(self, bank: Bank, tenant: str, query: str) -> str:
        _, recall, _ = memory_tools(bank, lambda: tenant, k=9)
        return str(recall.invoke({"query": query}))
