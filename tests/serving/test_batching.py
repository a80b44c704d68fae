"""Which images make a batch, and what becomes of them when the process that computes them dies."""

import asyncio
import os

import pytest

from imagetune.errors import ResourceError
from imagetune.serving.batching import BatchQueue, QueueFullError
from imagetune.serving.metrics import Metrics
from imagetune.serving.pool import ModelPool, ProcessDiedError

UPLOADS = [(f"{number}.png", b"") for number in range(10)]


class Process:
    """Stands for a process with a model: it answers names, and dies of an image that is called deadly."""

    def __init__(self, started):
        self.description = {"max_batch": 8, "parallel": True}
        self.sentinel, self._write = os.pipe()
        self.batches = started
        self.stopped = False

    def call(self, task, uploads, *, timeout_seconds):
        names = [name for name, _ in uploads]
        self.batches.append(names)
        if "deadly.png" in names:
            self.die()
            raise EOFError
        return [{"name": name} for name in names]

    def die(self):
        os.close(self._write)
        self._write = -1

    def stop(self):
        self.stopped = True


def build_pool(start, *, workers=1, capacity=100):
    queue = BatchQueue(capacity, lambda _: None)
    return ModelPool(start, queue, workers=workers, cores=2, max_batch=16, timeout_seconds=10, metrics=Metrics())


async def never():
    return asyncio.get_running_loop().create_future()


def test_a_free_process_takes_its_share_and_no_more_than_a_batch():
    async def work():
        queue, died = BatchQueue(100, lambda _: None), await never()
        queue.put("predict", UPLOADS)
        assert len(await queue.take(4, died)) == 4
        # While another process has nothing to do, it gets half of what comes.
        other = asyncio.create_task(queue.take(16, died))
        await asyncio.sleep(0)
        idle = [asyncio.create_task(queue.take(16, died)) for _ in range(2)]
        first = await other
        assert len(first) <= 6
        queue.put("predict", UPLOADS)
        batches = await asyncio.gather(*idle)
        assert sum(map(len, batches)) + len(first) + len(queue) == 16

    asyncio.run(work())


def test_busy_processes_find_their_share_when_they_are_free():
    async def work():
        queue, died = BatchQueue(100, lambda _: None, processes=2), await never()
        queue.put("predict", UPLOADS)
        return len(await queue.take(16, died)), len(queue)

    # A batch of all ten would keep the last of them waiting for twice as long.
    assert asyncio.run(work()) == (5, 5)


def test_what_finds_no_room_is_refused_as_a_whole():
    async def work():
        lengths = []
        queue = BatchQueue(12, lengths.append)
        queue.put("predict", UPLOADS)
        with pytest.raises(QueueFullError):
            queue.put("predict", UPLOADS)
        assert (len(queue), lengths) == (10, [10])

    asyncio.run(work())


def test_a_process_that_has_died_takes_nothing():
    async def work():
        queue, died = BatchQueue(12, lambda _: None), await never()
        taking = asyncio.create_task(queue.take(4, died))
        await asyncio.sleep(0)
        died.set_result(None)
        assert await taking == []
        queue.put("predict", UPLOADS)
        assert len(queue) == 10

    asyncio.run(work())


def test_an_image_that_kills_every_process_ends_as_an_error_and_the_others_are_answered():
    async def work():
        batches = []
        pool = build_pool(lambda: Process(batches))
        replies = pool.queue.put("predict", [("a.png", b""), ("deadly.png", b""), ("b.png", b"")])
        await pool.start()
        found = await asyncio.gather(*replies, return_exceptions=True)
        await pool.stop()
        assert [found[0], found[2]] == [{"name": "a.png"}, {"name": "b.png"}]
        assert isinstance(found[1], ProcessDiedError)
        # Together first, then each alone.
        assert batches == [["a.png", "deadly.png", "b.png"], ["a.png"], ["deadly.png"], ["b.png"]]

    asyncio.run(work())


def test_images_that_nobody_waits_for_are_not_computed():
    async def work():
        batches = []
        pool = build_pool(lambda: Process(batches))
        left, stays = pool.queue.put("predict", [("left.png", b""), ("stays.png", b"")])
        left.cancel()
        await pool.start()
        assert await stays == {"name": "stays.png"}
        await pool.stop()
        assert batches == [["stays.png"]]

    asyncio.run(work())


def test_a_process_that_dies_with_nothing_to_do_is_replaced():
    async def work():
        started = []

        def start():
            started.append(Process([]))
            return started[-1]

        pool = build_pool(start)
        await pool.start()
        await asyncio.sleep(0.01)
        started[0].die()
        while len(started) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert started[0].stopped
        assert pool.is_ready
        await pool.stop()
        assert started[1].stopped

    asyncio.run(work())


def test_a_model_that_cannot_be_loaded_is_reported_at_the_start():
    def start():
        raise ResourceError("no model")

    async def work():
        pool = build_pool(start)
        try:
            with pytest.raises(ResourceError, match="no model"):
                await pool.start()
        finally:
            await pool.stop()

    asyncio.run(work())
