"""Operations that run in the stage before them."""
