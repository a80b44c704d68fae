import logging

from imagetune.core.quiet import quiet_start


def test_only_the_advice_on_retracing_is_kept_off_the_screen(caplog):
    with quiet_start():
        pass
    logger = logging.getLogger("tensorflow")
    logger.warning("%d out of the last 5 calls triggered tf.function retracing. Tracing is expensive", 5)
    logger.warning("the device is out of memory")
    assert [record.getMessage() for record in caplog.records] == ["the device is out of memory"]
