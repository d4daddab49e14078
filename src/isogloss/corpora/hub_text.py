"""Text of the Hub by language, kept as a file: read once, then the same for every pass and every resume."""

import gzip
import json
from pathlib import Path

from filelock import FileLock

from isogloss.corpora.reading import read_texts
from isogloss.corpora.token_store import default_cache
from isogloss.errors import IsoglossError
from isogloss.storage import content_key, new_folder


def keep_hub_text(source: str, *, documents: int | None = None, cache_dir: str | Path | None = None) -> Path:
    """Reads a Hub data set into a file of the cache, or finds what an earlier run read.

    Args:
        source: `hub:ID[:config[:split]]`.
        documents: At most this many; None reads it whole.
        cache_dir: Where it is kept; `default_cache()` when None.

    Returns:
        A `.jsonl.gz` file, one `{"text": ...}` a line.

    Raises:
        IsoglossError: The data set cannot be read or has no text.
    """
    key = content_key({"source": source, "documents": documents})[:32]
    folder = Path(cache_dir or default_cache()) / "hub-text" / key
    kept = folder / "text.jsonl.gz"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder.parent / f".{key}.lock")):  # of several processes one reads it
        if kept.is_file():
            return kept
        with new_folder(folder) as unfinished:
            empty = True
            # No time in the header, so that the same text is the same file.
            with gzip.GzipFile(unfinished / kept.name, "wb", compresslevel=3, mtime=0) as stream:
                for text in read_texts(source, limit=documents):
                    empty = False
                    stream.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
            if empty:
                raise IsoglossError(f"The Hub data set '{source}' has no text; name another config or split.")
    return kept
