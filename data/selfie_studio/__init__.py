"""The film studio behind `data/selfie`: a head, hair, a sweater and a room, filmed by `data.make_selfie`.

Each module builds one thing as plain numpy arrays; only `stage` knows the renderer. Lengths are centimetres in the
head's own frame (x to the person's left, y up, z out of the face) until `stage` places them in the room, in metres.
"""
