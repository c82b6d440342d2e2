"""What an estimate cannot be made of."""


class EstimateError(ValueError):
    """Something is missing or makes no sense: what was got, and what was expected."""
