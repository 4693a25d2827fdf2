"""Film the scene that ships with the project: `data/selfie`, a moving person in a room, path-traced as phone photos.

    python -m data.make_selfie --head PATH/ict_facekit.npz --out data/selfie

The head mesh is ICT FaceKit's (MIT); all else, from the skin to the books, is made here by program. Frames land in a
work folder first, as linear light: a run that was stopped goes on where it stopped. `--motion-only` writes no photo, only how
the person's surface moves (`motion.npz`), and needs no renderer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial import Delaunay

from data.selfie_studio import motion, photo
from data.selfie_studio.points import write_motion

PACKAGE = Path(__file__).parent / "selfie_studio"
AFTERWARDS = ("photo.py", "points.py", "sight.py")  # of its files, those that no frame depends on


def validation() -> list[int]:
    """The instants that the second camera films too: every other one at which it stands among the places that the first
    camera ever films from, as seen from the face. Elsewhere it would look at parts of the room that no photo shows."""

    def angles(instant: int, second: bool) -> list[float]:
        away = motion.camera_at(instant, second).position - motion.TARGET
        return [np.arctan2(away[0], away[2]), np.arcsin(away[1] / np.linalg.norm(away))]

    places = Delaunay([angles(instant, False) for instant in range(motion.INSTANTS)])
    among = places.find_simplex([angles(instant, True) for instant in range(motion.INSTANTS)]) >= 0
    return [int(instant) for instant in np.flatnonzero(among)[::2]]


def shots(first: int, last: int) -> list[tuple[str, int, bool]]:
    """What to film from `first` to before `last`: (id, instant, by the second camera)."""
    listed, both = [], validation()
    for instant in range(first, last):
        listed.append((f"{instant:06d}_left", instant, False))
        if instant in both:
            listed.append((f"{instant:06d}_right", instant, True))
    return listed


def work_folder(root: Path, head: Path, spp: int) -> Path:
    """A folder for the frames of exactly these sources, head and samples: older frames are never mixed in."""
    digest = hashlib.sha256(str(spp).encode() + head.read_bytes())
    for source in sorted(PACKAGE.glob("*.py")):
        if source.name not in AFTERWARDS:
            digest.update(source.read_bytes())
    folder = root / digest.hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def background_points(positions: np.ndarray, camera: motion.PosedCamera, seed: int, count: int = 40) -> np.ndarray:
    """Some of the room's surface points that a camera sees "n 3"; the person stands within 0.8 m of the origin."""
    rows, columns = np.mgrid[: motion.SIZE[1], : motion.SIZE[0]]
    seen = np.linalg.norm(positions, axis=-1) > 0
    offset = camera.project(positions[seen]) - np.stack([columns[seen], rows[seen]], 1) - 0.5
    if np.abs(offset).max() > 0.55:  # each point lies somewhere in its own pixel, or the poses written are wrong
        raise AssertionError(f"the renderer's points land up to {np.abs(offset).max():.2f} px from their pixels")
    room = seen & (np.hypot(positions[..., 0], positions[..., 2]) > 0.8)
    return np.random.default_rng(seed).choice(positions[room], count, replace=False)


def film(head_path: Path, work: Path, wanted: list[tuple[str, int, bool]], spp: int) -> None:
    """Render the wanted shots that `work` doesn't hold yet: `<id>.npz` with the light and some background points."""
    missing = [shot for shot in wanted if not (work / f"{shot[0]}.npz").exists()]
    if not missing:
        return
    try:
        from data.selfie_studio.performer import Performer  # needs Mitsuba: not for developing alone
    except ImportError as error:
        sys.exit(f"{error}. Rendering needs Mitsuba and its denoiser: pip install -e '.[scenes]'")

    performer, start = Performer(head_path, work), time.time()
    for count, (name, instant, second) in enumerate(missing, 1):
        scene, camera = performer.scene(instant), motion.camera_at(instant, second)
        positions = performer.stage.positions(scene, camera)
        seed = 2 * instant + second
        points = background_points(positions, camera, seed)
        seen = positions[np.linalg.norm(positions, axis=-1) > 0]
        distance = np.linalg.norm(seen - camera.position, axis=-1)
        light = performer.stage.render(scene, camera, spp, seed)
        part = work / f"{name}.part.npz"  # renamed once whole: a killed run leaves no half frame
        np.savez(part, light=light.astype(np.float16), points=points, reach=[distance.min(), distance.max()])
        part.rename(work / f"{name}.npz")
        pace = (time.time() - start) / count
        left = pace * (len(missing) - count) / 60
        print(f"\r{name}  {count}/{len(missing)}  {pace:.1f} s a photo, {left:.0f} min left ", end="", flush=True)
    print()


def write_photos(work: Path, out: Path, wanted: list[tuple[str, int, bool]]) -> None:
    """Develop the frames to `rgb/1x` and `rgb/2x` and write the cameras."""
    (out / "camera").mkdir(parents=True, exist_ok=True)
    for name, instant, second in wanted:
        with np.load(work / f"{name}.npz") as frame:
            light = frame["light"].astype(np.float64)
        image = photo.develop(light, motion.exposure_at(instant), 2 * instant + second)
        photo.save_jpeg(out / "rgb/1x" / f"{name}.jpg", image)
        photo.save_jpeg(out / "rgb/2x" / f"{name}.jpg", photo.halve(image))
        write_camera(out / "camera" / f"{name}.json", motion.camera_at(instant, second))


def write_camera(path: Path, camera: motion.PosedCamera) -> None:
    """One camera as Nerfies writes it: OpenCV axes, pixels, metres."""
    width, height = motion.SIZE
    record = {
        "orientation": camera.orientation.tolist(), "position": camera.position.tolist(),
        "focal_length": motion.FOCAL, "principal_point": [width / 2, height / 2], "skew": 0.0,
        "pixel_aspect_ratio": 1.0, "radial_distortion": [0.0, 0.0, 0.0], "tangential_distortion": [0.0, 0.0],
        "image_size": [width, height],
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=2) + "\n")


def write_lists(work: Path, out: Path, wanted: list[tuple[str, int, bool]]) -> None:
    """`dataset.json`, `metadata.json`, `scene.json` and `points.npy`."""
    ids = [name for name, _, _ in wanted]
    train, val = ([name for name, _, second in wanted if second == side] for side in (False, True))
    dataset = {"count": len(ids), "num_exemplars": len(train), "ids": ids, "train_ids": train, "val_ids": val}
    metadata = {
        name: {"warp_id": instant, "appearance_id": instant, "camera_id": int(second)}
        for name, instant, second in wanted
    }
    frames = [np.load(work / f"{name}.npz") for name, _, _ in wanted]
    points = np.concatenate([frame["points"] for frame, shot in zip(frames, wanted) if not shot[2]]).astype(np.float32)
    cameras = np.stack([motion.camera_at(instant, second).position for _, instant, second in wanted])
    everything = np.concatenate([points, cameras])
    low, high = everything.min(0), everything.max(0)
    scale = 1.0 / float((high - low).max())  # cameras and room fit a cube of side 1
    reach = np.stack([frame["reach"] for frame in frames])
    scene = {
        "scale": scale, "center": ((low + high) / 2).tolist(),
        "near": 0.85 * scale * float(reach[:, 0].min()), "far": 1.05 * scale * float(reach[:, 1].max()),
    }  # fmt: skip
    np.save(out / "points.npy", points)
    for name, record in (("dataset", dataset), ("metadata", metadata), ("scene", scene)):
        (out / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


def follow(path: Path, head: Path, wanted: list[tuple[str, int, bool]]) -> None:
    """Write the motion of the person's surface, for those of the wanted shots that are trained on."""
    write_motion(path, head, [(name, instant) for name, instant, second in wanted if not second])


def follow_alone(out: Path, head: Path, wanted: list[tuple[str, int, bool]]) -> None:
    """Add the motion to a scene that is there. Its photos must be those wanted, or the command ends."""
    try:
        found = json.loads((out / "dataset.json").read_text())["train_ids"]
    except (OSError, ValueError, KeyError):
        sys.exit(f"--out {out}: expected a scene with dataset.json, to which --motion-only adds, found none")
    expected = [name for name, _, second in wanted if not second]
    if found != expected:
        sys.exit(
            f"{out / 'dataset.json'}: train_ids: expected {len(expected)} photos as by --frames, found {len(found)}"
        )
    follow(out / "motion.npz", head, wanted)
    print(f"{out / 'motion.npz'}: {(out / 'motion.npz').stat().st_size / 2**20:.2f} MiB")


def main(arguments: list[str] | None = None) -> None:
    """The command line: render the photos, or write again what is beside them."""
    options = parse(arguments)
    first, last = options.frames
    wanted = shots(first, last)
    if options.motion_only:
        follow_alone(options.out, options.head, wanted)
        return
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / "dataset.json").exists():
        sys.exit(f"--out {options.out}: holds something other than a scene, and would be replaced as a whole")
    work = work_folder(options.work, options.head, options.spp)
    film(options.head, work, wanted, options.spp)
    fresh = work / "tree"
    shutil.rmtree(fresh, ignore_errors=True)
    write_photos(work, fresh, wanted)
    write_lists(work, fresh, wanted)
    follow(fresh / "motion.npz", options.head, wanted)
    if (options.out / "README.md").exists():
        shutil.copy(options.out / "README.md", fresh)
    shutil.rmtree(options.out, ignore_errors=True)
    shutil.move(fresh, options.out)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{options.out}: {len(wanted)} photos, {size / 2**20:.1f} MiB")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, checked; `frames` becomes (first, past the last)."""
    parser = argparse.ArgumentParser(prog="python -m data.make_selfie", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--head", type=Path, required=True, help="ict_facekit.npz: the head mesh (not in this repository)"
    )
    parser.add_argument("--out", type=Path, default=Path("data/selfie"), help="the scene's folder, replaced as a whole")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/make_selfie"), help="where frames are kept between runs"
    )
    parser.add_argument("--spp", type=int, default=4, help="light paths per rendered pixel; a photo's pixel has four")
    parser.add_argument("--frames", default=f"0:{motion.INSTANTS}", help="instants to film, first:past-the-last")
    parser.add_argument(
        "--motion-only", action="store_true", help="only add motion.npz to the scene in --out: two minutes, no renderer"
    )
    options = parser.parse_args(arguments)
    if not options.head.is_file():
        sys.exit(f"--head {options.head}: no such file; expected ict_facekit.npz (see data/selfie/README.md)")
    try:
        first, last = (int(part) for part in options.frames.split(":"))
    except ValueError:
        sys.exit(f"--frames {options.frames}: expected first:past-the-last, such as 0:{motion.INSTANTS}")
    if not 0 <= first < last <= motion.INSTANTS:
        sys.exit(f"--frames {options.frames}: expected a range within 0:{motion.INSTANTS}")
    options.frames = first, last
    return options


if __name__ == "__main__":
    main()
