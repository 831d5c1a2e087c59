"""Prepared volumes on disk; only this package knows their format.

A cache folder belongs to one contrast and one way of cropping, conforming and storing it (`CacheKey`).
In it lie shards: `NAME.volumes` holds the volumes one after the other, `NAME.json` says what is where
and ends with its own checksum. A shard is written by one process only, volumes first, then the index
beside and renamed: a volume counts from the moment an index on disk names it, whatever happens later.
Readers take all indexes together; where two name the same source, the later generation holds.

A volume holds the voxels of its mask (those that are not 0), as runs along the last axis:

    runs of each row (X * Y, uint16), starts and lengths of the runs (uint16),
    positions (uint32) and values (float32) of voxels that are kept exactly, values of all runs

each part padded to 8 bytes, under one crc32 that is verified whenever a volume is read.
"""
