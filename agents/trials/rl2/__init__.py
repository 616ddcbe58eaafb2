"""RL² (Duan et al. 2016): a recurrent policy that learns within trials."""
