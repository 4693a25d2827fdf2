"""`python -m nerf.kernels`: which backends this machine has."""

from nerf.kernels.backends import available, choose


def main() -> None:
    """Print a row a backend, then what `auto` takes."""
    for backend, why in available().items():
        print(f"{backend:10}  {'available' if not why else 'not available: ' + why}")
    print(f"auto takes: {choose()[0]}")


if __name__ == "__main__":
    main()
