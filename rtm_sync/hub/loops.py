"""What every owner of an event loop needs at its end."""

from __future__ import annotations

import asyncio


async def cancel_rest() -> None:
    """Cancel every other task of this loop and wait for their ends; call it before closing."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
