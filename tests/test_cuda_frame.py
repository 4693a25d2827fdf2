"""The kernels of `look` and `frame`, emulated, beside a reference in float64 that rounds where they do."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nerf.kernels import cuda_field, cuda_frame, cuda_shade, frame
from nerf.kernels.composite import offsets_of, ray_of_sample, transmittance
from nerf.kernels.frame import Course, GridField
from nerf.kernels.hash_encode import hash_encode
from nerf.kernels.march import cell_index, dilation, march
from nerf.kernels.space import Space, to_unit
from nerf.kernels.warp import WarpField, Warping
from tests import emulator
from tests.cuda_emulated import GPU, NEEDS, distance, emulated, on_the_cpu  # noqa: F401 (a fixture)
from tests.test_nerf_kernels_frame import make_field, make_rays
from tests.test_nerf_kernels_shade import leaves

pytestmark = [NEEDS, pytest.mark.usefixtures("emulated", "seed")]
N, STOP, FAINT = 16, 1e-2, 1e-3
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def make_course(contract: bool, jitter: Tensor | None, share: float = 0.5, cone: float = 0.0) -> Course:
    occupied = torch.rand(N**3) < share
    return Course(occupied, N, Space((0.1, -0.2, 0.3), 1.5, contract), 0.03, cone, jitter, None)


def network(x: Tensor, weights: list[Tensor], biases: list[Tensor], dtype: torch.dtype) -> Tensor:
    """In float64, of rounded weights and of rounded numbers that enter a layer."""
    for layer, (weight, bias) in enumerate(zip(weights, biases)):
        x = (x.relu() if layer else x).to(dtype).double() @ weight.to(dtype).double().T + bias.double()
    return x


def samples(rays: tuple[Tensor, ...], course: Course, field: GridField, dtype: torch.dtype):
    """All samples of a march, and what the field and the light say of them: t, dt, ray, x_unit, features, density, light."""
    t, dt, offsets = march(*rays, *course)
    ray = ray_of_sample(offsets, len(t))
    x = to_unit(rays[0][ray] + rays[1][ray] * t[:, None], course.space)
    encoded = hash_encode(x.double(), field.table.double(), field.geometry).float()
    features = network(encoded, field.density_weights, field.density_biases, dtype)
    density = (features[:, 0] + field.density_bias).clamp(max=frame.HIGHEST_RAW).exp() * field.density_scale
    return t, dt, ray, x, features, density, transmittance(density, dt.double(), offsets)


def expected_frame(rays, course, field, view, dtype) -> Tensor:
    """Columns: colour, depth, opacity."""
    t, dt, ray, _, features, density, light = samples(rays, course, field, dtype)
    weights = light * -torch.expm1(-density * dt.double())
    seen = (light > STOP) & (weights > FAINT)
    inputs = torch.cat([features.float(), view[ray]], 1)
    rgb = torch.sigmoid(network(inputs, field.color_weights, field.color_biases, dtype))
    columns = torch.cat([rgb, t.double()[:, None], torch.ones_like(rgb[:, :1])], 1) * (weights * seen)[:, None]
    return columns.new_zeros(len(rays[2]), 5).index_add_(0, ray, columns)


def columns_of(seen: frame.Seen) -> Tensor:
    return torch.cat([seen.rgb, seen.depth[:, None], seen.opacity[:, None]], 1)


@pytest.mark.parametrize(
    "features, contract, dtype",
    [(4, True, "float16"), (4, False, "bfloat16"), (2, True, "bfloat16"), (8, True, "float16"), (3, False, "float16")],
)
def test_pictures_are_the_references(features, contract, dtype):
    field = make_field(features=features)
    for count, schedule in ((0, 0), (1, 1), (33, 2), (150, 1)):
        rays, view = make_rays(count), torch.randn(count, 5)
        course = make_course(contract, torch.rand(count))
        with emulator.schedule(emulator.SCHEDULES[schedule], seed=count):
            found = cuda_frame.frame(rays, course, field, view, STOP, FAINT, dtype)
        wanted = expected_frame(rays, course, field, view, DTYPES[dtype])
        assert count < 100 or (wanted[:, 4].max() > 0.9 and wanted[:, 4].min() == 0)
        assert distance(columns_of(found), wanted) < 1e-3  # measured: 1.3e-4 at most


@pytest.mark.parametrize("contract, dtype", [(False, "float16"), (True, "bfloat16")])
def test_looks_find_the_references_samples_and_raise_the_grid(contract, dtype):
    field = make_field()
    for count, schedule in ((0, 0), (1, 1), (33, 2), (150, 1)):
        rays, course = make_rays(count), make_course(contract, torch.rand(count))
        t, dt, ray, x, _, density, light = on_the_cpu(samples, rays, course, field, DTYPES[dtype])
        lit = light > STOP
        kept = lit & (density * dt > 0.01)
        raised, values = torch.full((N**3,), 0.01), torch.full((N**3,), 0.01, device="cpu")
        values.scatter_reduce_(0, cell_index(x[lit], N).long(), density[lit].float() * 0.5, "amax")
        with emulator.schedule(emulator.SCHEDULES[schedule], seed=count):
            found = cuda_frame.look(rays, course, field, STOP, 0.01, raised, 0.5, dtype)
        # A rounding now and then tips a sample over a limit.
        assert abs(found.lit - int(lit.sum())) <= 2 and abs(len(found.t) - int(kept.sum())) <= 2
        assert count < 100 or 500 < len(found.t) < found.lit
        assert torch.equal(found.offsets, offsets_of(found.ray, count))
        if len(found.t) == int(kept.sum()):
            laid = found.ray.cpu(), found.t.cpu(), found.dt.cpu()
            assert all(torch.equal(one, other[kept]) for one, other in zip(laid, (ray, t, dt)))
        assert distance(raised, values.double()) < 1e-3  # measured: 2.8e-4 at most


def test_every_run_gives_the_same_bits():
    rays, field, view = make_rays(60), make_field(), torch.randn(60, 5)
    course, runs = make_course(True, None, cone=1 / 64), []
    by = dilation(course.step, course.cone, 4.0, course.space, N)
    cube = course.occupied.view(1, 1, N, N, N).float()
    dilated = torch.nn.functional.max_pool3d(cube, 2 * by + 1, 1, by).view(-1) > 0
    for schedule in emulator.SCHEDULES:
        for along in (course, course._replace(dilated=dilated)):
            with emulator.schedule(schedule, seed=5):
                seen = cuda_frame.frame(rays, along, field, view, STOP, FAINT, "float16")
                looked = cuda_frame.look(rays, along, field, STOP, 0.01, None, 1.0, "float16")
            runs.append([*seen, *looked[:4], torch.tensor(looked.lit)])
    assert len(runs[0][3]) > 200
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


def test_a_look_that_finds_more_than_it_had_room_for_looks_again():
    rays, field = make_rays(60), make_field(scale=0.05)
    course = make_course(False, None, share=1.0)
    launched = 0 if GPU else emulator.library().emulation_launches()
    cuda_frame._room.clear()
    found = cuda_frame.look(rays, course, field, STOP, 0.0, None, 1.0, "float16")
    assert (
        GPU or emulator.library().emulation_launches() == launched + 3
    )  # two looks, and one to bring samples into order
    expected = on_the_cpu(march, *rays, *course)
    assert len(found.t) > 1024
    assert torch.equal(found.t.cpu(), expected.t) and torch.equal(found.offsets.cpu(), expected.offsets)


@pytest.mark.parametrize("spare", [700, 0, -150])
def test_a_look_that_is_given_room_fills_it_with_samples_of_no_length(spare):
    rays, field = make_rays(60), make_field()
    course = make_course(False, torch.rand(60))
    values, raised = torch.full((2, N**3), 0.01)
    exact = cuda_frame.look(rays, course, field, STOP, 0.01, values, 0.5, "float16")
    room = exact.kept + spare
    found = cuda_frame.look(rays, course, field, STOP, 0.01, raised, 0.5, "float16", room)
    assert 500 < len(exact.t) == exact.kept == int(found.kept) and exact.lit == int(found.lit)
    assert torch.equal(raised, values) and len(found.t) == len(found.dt) == len(found.ray) == room
    own, shares = exact.offsets.diff(), found.offsets.diff()
    assert int(found.offsets[0]) == 0 and int(found.offsets[-1]) == room and (shares >= 0).all()
    full = found.dt > 0
    if spare >= 0:
        assert set((shares - own).tolist()) <= {spare // 60, spare // 60 + 1}
        laid = found.t[full], found.dt[full], found.ray[full]
        assert all(torch.equal(one, other) for one, other in zip(laid, (exact.t, exact.dt, exact.ray)))
    else:
        assert 0 < int(full.sum()) < room  # which are left out, nobody says
    there = set(zip(exact.ray.tolist(), exact.t.tolist()))
    assert set(zip(found.ray.tolist(), found.t.tolist())) <= there
    if spare >= 0:
        drawn = leaves(field, torch.float32)
        results = []
        for looked in (exact, found):
            packed = looked.t, looked.dt, looked.offsets, looked.ray
            given = (*rays[:2], torch.ones(60, 5)), packed, course.space, drawn[0], None, None, "float16"
            out = cuda_shade.shade(*given).out
            sums = torch.autograd.grad(out.rgb.square().sum() + out.depth.sum(), drawn[1])
            results.append([out.rgb, out.depth, out.opacity, out.weights[looked.dt > 0], *sums])
        assert all(distance(one, other) < 1e-5 for one, other in zip(*results))


def test_a_look_with_room_at_no_rays_and_with_none(monkeypatch):
    field, course = make_field(), make_course(False, None)
    empty = course._replace(occupied=torch.zeros_like(course.occupied))
    rays = make_rays(40)
    middle = float((rays[2] + rays[3])[-1] / 2)
    monkeypatch.setattr(Tensor, "tolist", None)  # nothing is read back
    blank = cuda_frame.look(rays, empty, field, STOP, 0.01, None, 1.0, "float16", 7)
    assert int(blank.kept) == 0 and (blank.ray == 39).all() and not blank.dt.any()
    assert blank.t.allclose(torch.tensor(middle))
    nothing = cuda_frame.look(make_rays(0), course, field, STOP, 0.01, None, 1.0, "float16", 0)
    assert len(nothing.t) == 0 and torch.equal(nothing.offsets, torch.zeros_like(nothing.offsets))
    none = cuda_frame.look(make_rays(40), course, field, STOP, 0.01, None, 1.0, "float16", 0)
    assert len(none.t) == 0 and not none.offsets.any() and int(none.kept) > 100


def test_wide_networks_take_smaller_blocks_and_wider_ones_are_left_to_others():
    field = make_field(width=128)
    rays, view = make_rays(40), torch.randn(40, 5)
    device = view.device
    course = make_course(True, None)
    made = cuda_frame.plan(cuda_frame._widths(field, 5), 99 * 1024)
    assert made is not None and made.block == 64 and cuda_frame.fits(field, 5, device)
    found = cuda_frame.frame(rays, course, field, view, STOP, FAINT, "float16")
    assert distance(columns_of(found), expected_frame(rays, course, field, view, torch.float16)) < 1e-3
    assert not cuda_frame.fits(make_field(width=512), 5, device)
    deep = field._replace(color_weights=field.color_weights[:1] + field.color_weights[1:2] * 8)
    assert not cuda_frame.fits(deep, 5, device)


@pytest.mark.parametrize(
    "hidden, geometry, color, seen", [((), 1, (), 1), ((5, 31), 33, (1,), 20), ((64, 16), 16, (48, 7), 3)]
)
def test_layers_of_any_number_and_width(hidden, geometry, color, seen):
    field = make_field()
    drawn = []
    for widths in ((field.geometry.width, *hidden, geometry), (geometry + seen, *color, 3)):
        drawn += [[torch.randn(o, i) / i**0.5 for i, o in pairwise(widths)], [torch.randn(o) * 0.1 for o in widths[1:]]]
    field = GridField(field.table, field.geometry, drawn[0], drawn[1], drawn[2], drawn[3], 0.5, 1.0)
    rays, view = make_rays(40), torch.randn(40, seen)
    course = make_course(True, None)
    found = cuda_frame.frame(rays, course, field, view, STOP, FAINT, "float16")
    assert distance(columns_of(found), expected_frame(rays, course, field, view, torch.float16)) < 1e-3


def test_rays_that_are_no_numbers_harm_no_others():
    rays, field, view = make_rays(40), make_field(), torch.randn(40, 5)
    course = make_course(True, None)
    whole = columns_of(cuda_frame.frame(rays, course, field, view, STOP, FAINT, "float16"))
    rays[3][2], rays[3][9], rays[0][17, 1] = torch.nan, torch.inf, torch.nan
    found = columns_of(cuda_frame.frame(rays, course, field, view, STOP, FAINT, "float16"))
    good = torch.ones(40, dtype=torch.bool)
    good[[2, 9, 17]] = False
    assert torch.equal(found[good], whole[good]) and found[[2, 9]].isnan().all()
    with pytest.raises(ValueError, match="fewer than 2\\^24 steps"):
        cuda_frame.look(rays, course, field, STOP, 0.01, None, 1.0, "float16")


def test_what_is_warped_goes_op_by_op_on_the_backends_kernels():
    rays, field, view, codes = make_rays(40), make_field(), torch.randn(40, 5), torch.randn(40, 4) * 0.3
    course = make_course(True, torch.rand(40))
    weights, biases = [torch.randn(16, 13) * 0.3, torch.randn(6, 16) * 0.1], [torch.zeros(16), torch.zeros(6)]
    warping = Warping(WarpField(weights, biases, (), [], [], torch.tensor([1.0]), 0.25, True), codes)
    found = cuda_field.frame(*rays, course, field, view, STOP, FAINT, None, warping)
    wanted = frame.frame(*rays, course, field, view, STOP, FAINT, None, warping)
    still = cuda_field.frame(*rays, course, field, view, STOP, FAINT)
    assert distance(columns_of(found), columns_of(wanted)) < 0.02 < distance(columns_of(still), columns_of(wanted))
    raised, values = torch.full((2, N**3), 0.01)
    here = cuda_field.look(*rays, course, field, STOP, 0.01, raised, 0.5, warping)
    there = frame.look(*rays, course, field, STOP, 0.01, values, 0.5, warping)
    assert abs(len(here.t) - len(there.t)) <= 0.02 * len(there.t) and distance(raised, values) < 0.05
