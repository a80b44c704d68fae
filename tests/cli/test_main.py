"""What every command line has in common."""


def test_an_empty_argument_is_not_the_working_folder(imagetune, workplace):
    outcome = imagetune("recipe", "validate", "")
    assert outcome.code == 2
    assert "a variable of the command may not be set" in outcome.err


def test_a_path_that_the_system_refuses_is_no_bug(imagetune, workplace):
    outcome = imagetune("fit", "x" * 5000)
    assert outcome.code == 5
    assert "File name too long; choose a shorter name" in outcome.err
    assert len(outcome.err) < 400
