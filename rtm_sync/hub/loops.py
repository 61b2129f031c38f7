"""Clean-up of an event loop before it is closed."""

from __future__ import annotations

import asyncio


async def cancel_rest() -> None:
    """Cancel every other task of this loop and wait until they end. Call it before `loop.close`."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
