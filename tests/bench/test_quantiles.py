import numpy as np
import pytest

from stages.bench.quantiles import calls_for, quantile_ms


@pytest.mark.parametrize(("share", "calls"), [(0.5, 1), (0.9, 100), (0.95, 200), (0.99, 1000)])
def test_a_quantile_takes_ten_calls_beyond_it(share: float, calls: int) -> None:
    assert calls_for(share) == calls
    assert quantile_ms(np.full(calls, 2e6), share) == 2.0
    if calls > 1:
        assert quantile_ms(np.full(calls - 1, 2e6), share) is None
