from imagetune.run_folder.sizes import estimate_sizes


def test_a_solved_head_costs_the_weights_three_times_in_all():
    sizes = estimate_sizes(1_000_000, [0])
    assert (sizes.model, sizes.checkpoints) == (8_000_000, 4_000_000)


def test_a_trained_backbone_costs_more_for_its_checkpoints_than_for_the_model():
    sizes = estimate_sizes(1_000_000, [10_000, 1_000_000])
    assert sizes.checkpoints == 4_000_000 + 4 * 3 * 4_000_000
