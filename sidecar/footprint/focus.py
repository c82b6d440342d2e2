"""A bill as rows of the FinOps Open Cost and Usage Specification (FOCUS): its column names, and one row for each part.

The mandatory columns of FOCUS 1.2 and those of its conditional ones that apply; the allocation columns are of 1.3, which is the first to
have them. Ours begin with `x_`, as it asks.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from perjoule.sidecar.footprint.allocation import RATIO_DIGITS, Bill, Part
from perjoule.sidecar.footprint.statement import MICRO, REQUESTS, UJ_PER_KWH
from perjoule.sidecar.units import NS_PER_S

COLUMNS: dict[str, type] = {
    "BilledCost": Decimal, "EffectiveCost": Decimal, "ListCost": Decimal, "ContractedCost": Decimal, "BillingCurrency": str,
    "BillingAccountId": str, "BillingAccountName": str, "BillingPeriodStart": datetime, "BillingPeriodEnd": datetime,
    "ChargePeriodStart": datetime, "ChargePeriodEnd": datetime, "ChargeCategory": str, "ChargeClass": str, "ChargeFrequency": str,
    "ChargeDescription": str, "ConsumedQuantity": Decimal, "ConsumedUnit": str, "PricingQuantity": Decimal, "PricingUnit": str,
    "InvoiceIssuerName": str, "ProviderName": str, "PublisherName": str, "ServiceCategory": str, "ServiceSubcategory": str,
    "ServiceName": str, "SubAccountId": str, "SubAccountName": str, "ResourceId": str, "ResourceName": str, "ResourceType": str,
    "Tags": str, "AllocatedMethodId": str, "AllocatedMethodDetails": str,
    "x_Account": str, "x_EnergyMicrojoules": int, "x_LedgerMicrojoules": int, "x_Requests": int, "x_EnergyStatus": str,
    "x_OriginCost": Decimal, "x_Pue": Decimal,
}
METHODS = {False: "perjoule-energy-idle-own", True: "perjoule-energy-idle-spread"}  # docs/carbon-and-cost.md says how each divides
MONEY, QUANTITY = Decimal("0.000001"), Decimal("0.000000000001")


@dataclass(frozen=True)
class About:
    """What a row says beside its part: whose bill, for which time, in which currency, and how it was divided."""

    currency: str
    account: str
    provider: str
    begin_unix_ns: int
    until_unix_ns: int
    pue: Fraction | None
    spread: bool


def rows(bill: Bill, about: About) -> Iterator[dict[str, Any]]:
    """One for each part, with None for what does not apply; BilledCost sums to `x_OriginCost`."""
    for part in bill.parts:
        cost, kwh = part.cost_micro * MONEY, kwh_of(part.energy_uj)
        tenant, model = part.key.get("tenant"), part.key.get("model")
        yield dict.fromkeys(COLUMNS) | {
            "BilledCost": cost, "EffectiveCost": cost, "ListCost": cost, "ContractedCost": cost, "BillingCurrency": about.currency,
            "BillingAccountId": about.account, "BillingAccountName": about.account,
            "BillingPeriodStart": instant(about.begin_unix_ns), "BillingPeriodEnd": instant(about.until_unix_ns),
            "ChargePeriodStart": instant(part.begin_unix_ns), "ChargePeriodEnd": instant(part.until_unix_ns),
            "ChargeCategory": "Usage", "ChargeFrequency": "Usage-Based", "ChargeDescription": _described(part, about),
            "ConsumedQuantity": kwh, "ConsumedUnit": "kWh", "PricingQuantity": kwh, "PricingUnit": "kWh",
            "InvoiceIssuerName": about.provider, "ProviderName": about.provider, "PublisherName": about.provider,
            "ServiceCategory": "AI and Machine Learning", "ServiceSubcategory": "Generative AI", "ServiceName": "Inference energy",
            "SubAccountId": tenant, "SubAccountName": tenant, "ResourceId": model, "ResourceName": model,
            "ResourceType": "Model" if model else None, "Tags": json.dumps({name: value for name, value in part.key.items() if value}),
            "AllocatedMethodId": METHODS[about.spread],
            "AllocatedMethodDetails": json.dumps({"Elements": [{
                "AllocatedRatio": float(Decimal(part.ratio).scaleb(-RATIO_DIGITS)), "UsageUnit": "kWh", "UsageQuantity": float(kwh)}]}),
            "x_Account": part.what, "x_EnergyMicrojoules": part.energy_uj, "x_LedgerMicrojoules": part.ledger_uj,
            "x_Requests": part.requests, "x_EnergyStatus": ",".join(sorted(part.statuses)) or None,
            "x_OriginCost": bill.cost_micro * MONEY, "x_Pue": None if about.pue is None else decimal(about.pue, QUANTITY)}


def kwh_of(uj: int) -> Decimal:
    """Microjoules as kWh to twelve places: a ninth of one has no last digit, so the exact number is in `x_EnergyMicrojoules`."""
    return decimal(Fraction(uj, UJ_PER_KWH), QUANTITY)


def decimal(value: Fraction, quantum: Decimal) -> Decimal:
    """Rounded to the quantum, half to even."""
    return round(value / Fraction(quantum)) * quantum


def instant(unix_ns: int) -> datetime:
    """To the microsecond."""
    return datetime.fromtimestamp(unix_ns // NS_PER_S, UTC).replace(microsecond=unix_ns % NS_PER_S // 1000)


def _described(part: Part, about: About) -> str:
    simulated = "simulated, no sensor stands behind it: " if "simulated" in part.statuses else ""
    what = f"energy of {part.requests} requests" if part.what == REQUESTS else f"{part.what} energy"
    return f"{simulated}{what}{', with its part of what no request bears' if about.spread and part.what == REQUESTS else ''}"


assert MONEY * MICRO == 1
