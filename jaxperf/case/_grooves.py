def synthetic_right_coronary(settings, heart, network):
    raise RuntimeError
