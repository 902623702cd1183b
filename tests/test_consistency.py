"""Consistency of neighbouring views on scenes whose geometry is known exactly."""

import pytest
import torch
from torch import Tensor

from fvgen.cameras import Cameras
from fvgen.evaluation.metrics import correspondences, neighbour_metrics, warp_consistency

WIDTH, HEIGHT, FOCAL = 64, 48, 60.0


def sliding(steps: list[float]) -> Cameras:
    """Cameras that look along z and stand at ``x = step``."""
    poses = torch.eye(4, dtype=torch.float64).repeat(len(steps), 1, 1)
    poses[:, 0, 3] = torch.tensor(steps, dtype=torch.float64)
    intrinsics = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(poses, intrinsics.repeat(len(steps), 1, 1), torch.tensor([[WIDTH, HEIGHT]]).repeat(len(steps), 1))


def wall(steps: list[float], depth: float = 4.0) -> tuple[Tensor, Tensor]:
    """Pictures and depth of a wall with a smooth pattern, seen by :func:`sliding` cameras."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    pictures = []
    for step in steps:
        across = (x - WIDTH / 2) / FOCAL * depth + step
        pictures.append(torch.stack([(1 + torch.sin(k * across + y / 7)) / 2 for k in (1, 2, 3)], -1))
    return torch.stack(pictures), torch.full((len(steps), HEIGHT, WIDTH), depth)


def test_positions_follow_the_geometry():
    _, depth = wall([0, 0.2])
    matches = correspondences(depth, sliding([0, 0.2]))
    centres = torch.arange(WIDTH) + 0.5
    x, y = matches.positions[0, 5].unbind(-1)
    assert torch.allclose(x, centres + 0.2 / 4 * FOCAL, atol=1e-4)  # three pixels to the right
    assert torch.allclose(y, torch.full((WIDTH,), 5.5), atol=1e-4)
    assert matches.seen[0, 5].tolist() == [True] * (WIDTH - 3) + [False] * 3


def test_views_of_a_wall_agree_and_wrong_depth_shows():
    steps = [0, 0.11, 0.23, 0.31]
    pictures, depth = wall(steps)
    right = warp_consistency(pictures, correspondences(depth, sliding(steps)))
    wrong = warp_consistency(pictures, correspondences(depth * 1.5, sliding(steps)))
    assert right.shape == (3,)
    assert (right < 2e-3).all()
    assert (wrong > 5 * right).all()


def test_a_step_of_brightness_is_what_it_is():
    frames = torch.tensor([0.3, 0.4, 0.35]).view(3, 1, 1, 1).expand(3, HEIGHT, WIDTH, 3)
    _, depth = wall([0, 0.1, 0.2])
    matches = correspondences(depth, sliding([0, 0.1, 0.2]))
    assert warp_consistency(frames, matches).tolist() == pytest.approx([0.1, 0.05], abs=1e-6)
    metrics = neighbour_metrics(frames, 0.3 + (frames - 0.3) / 2, matches)
    assert metrics["flicker"].tolist() == pytest.approx([2, 2], rel=1e-4)
    assert metrics["warp_consistency_truth"].tolist() == pytest.approx([0.05, 0.025], abs=1e-6)


def test_what_was_hidden_does_not_count():
    """A near board hides a stripe of the wall from the first camera; frame 1 paints that stripe at will."""
    shift_wall, shift_board = 0.4 / 4 * FOCAL, 0.4 / 2 * FOCAL  # 6 and 12 pixels to the left in frame 1
    depth = torch.full((2, HEIGHT, WIDTH), 4.0)
    depth[0, :, 30:42] = 2.0
    depth[1, :, 18:30] = 2.0
    matches = correspondences(depth, sliding([0, 0.4]))
    assert (shift_wall, shift_board) == (6, 12)
    stripe = [column for column in range(WIDTH) if 30 <= column < 36]  # wall pixels 36..41 of frame 0, behind the board
    seen = matches.seen[0, 10]
    assert not seen[stripe].any()
    assert seen[18:30].all()
    assert seen[:18].all()
    frames = torch.full((2, HEIGHT, WIDTH, 3), 0.5)
    frames[1, :, stripe] = 1.0
    assert warp_consistency(frames, matches).tolist() == [0.0]


def test_unknown_depth_and_equal_frames_give_no_number():
    pictures, depth = wall([0, 0.1, 0.2])
    depth[1] = torch.tensor([0.0, torch.inf]).repeat(WIDTH // 2)
    matches = correspondences(depth, sliding([0, 0.1, 0.2]))
    assert not matches.seen.any()
    assert warp_consistency(pictures, matches).isnan().all()
    still = torch.full((3, HEIGHT, WIDTH, 3), 0.5)
    full = correspondences(wall([0, 0.1, 0.2])[1], sliding([0, 0.1, 0.2]))
    assert neighbour_metrics(pictures, still, full)["flicker"].isnan().all()


def test_one_frame_has_no_neighbours():
    pictures, depth = wall([0])
    assert warp_consistency(pictures, correspondences(depth, sliding([0]))).shape == (0,)


def test_correspondences_of_other_frames_are_refused():
    pictures, depth = wall([0, 0.1])
    with pytest.raises(ValueError, match="cameras"):
        correspondences(depth, sliding([0]))
    with pytest.raises(ValueError, match="do not fit"):
        warp_consistency(pictures[:, :20], correspondences(depth, sliding([0, 0.1])))
