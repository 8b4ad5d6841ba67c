"""Operations that run in the stage of what is before them."""
